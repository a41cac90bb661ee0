-- Takes what one process knows of a caller: the holds that it keeps, and what it admitted on its own account.
--
-- ARGV[1]  msgpack [lease ms, members, limits, requests, tokens, debt, floors]
--          members   holds to renew; one that is not there (the server lost it, or its clock leapt) is put back
--          limits    [requests per minute, tokens per minute], -1: none
--          requests, tokens   what was spent unreported: [age in whole seconds, amount], …
--          floors    [age, requests, tokens] that the server is known to have counted before it lost its memory; or []
-- Returns  the number of open holds.

local lease_ms, members, limits, requests, tokens, debt, floors = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_s()
local account

local function opened()
  if not account then
    account = open_account(true)
    advance_window(account.requests, now)
    if limits[1] >= 0 then account.requests.limit = limits[1] end
    if limits[2] >= 0 then account.tokens.limit = limits[2] end
    advance_tokens(account, now)
  end
  return account
end

local function raise_floor(window, known, age_s)
  if known > window.floor then
    spend_aged(window, known - window.floor, age_s)
    window.floor = known
  end
end

if #requests + #tokens + #floors + debt > 0 then
  opened()
  for _, spending in ipairs(requests) do spend_aged(account.requests, spending[2], spending[1]) end
  for _, spending in ipairs(tokens) do spend_aged(account.tokens, spending[2], spending[1]) end
  account.debt = account.debt + debt
  if #floors > 0 and floors[1] < SPAN then
    raise_floor(account.requests, floors[2], floors[1])
    raise_floor(account.tokens, floors[3], floors[1])
  end
end

local lease_end = math.floor(now * 1000) + lease_ms
for _, member in ipairs(members) do
  if redis.call('ZSCORE', KEYS[2], member) then
    redis.call('ZADD', KEYS[2], lease_end, member)
  else
    opened()
    redis.call('ZADD', KEYS[2], lease_end, member)
    account.reserved = account.reserved + held_tokens(member)
    account.open = account.open + 1
  end
end
if account then
  close_account(account)
elseif #members > 0 then
  local kept_ms = 2 * SPAN * 1000
  for _, key in ipairs(KEYS) do
    if redis.call('PTTL', key) < kept_ms then redis.call('PEXPIRE', key, kept_ms) end
  end
end
return redis.call('ZCARD', KEYS[2])
