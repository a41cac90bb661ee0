-- Ends a hold: what it reserved is replaced by what was used. A hold that is not there was settled before: nothing.
--
-- ARGV[1]  msgpack [member of the set of holds, whether tokens are limited (0 or 1), used tokens]
-- Returns  1 if the hold was there, else 0.

local member, counts_tokens, used = unpack(cmsgpack.unpack(ARGV[1]))
local account = open_account(true)
if redis.call('ZREM', KEYS[2], member) == 0 then return 0 end
account.open = account.open - 1
if counts_tokens == 1 then
  advance_tokens(account, now_s())
  account.reserved = math.max(account.reserved - held_tokens(member), 0)
  account.debt = account.debt + used
  pay(account)
end
close_account(account)
return 1
