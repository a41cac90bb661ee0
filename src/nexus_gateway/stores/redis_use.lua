-- Tells what one caller has used of its limits, for operators to see. Writes nothing.
--
-- Returns  [requests of the last minute, tokens of the last minute or reserved or owed, requests in flight].

local read, account = pcall(read_account, true)
if not read then return {0, 0, 0} end -- the next decision begins it anew
local now = now_s()
advance_window(account.requests, now)
advance_tokens(account, now)
local open = account.open > 0 and redis.call('ZCOUNT', KEYS[2], '(' .. math.floor(now * 1000), '+inf') or 0
return {account.requests.total, account.tokens.total + account.reserved + account.debt, open}
