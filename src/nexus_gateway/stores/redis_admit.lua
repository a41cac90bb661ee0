-- Decides all limits of one caller at once: reserves everything, or refuses and consumes nothing.
--
-- ARGV[1]  msgpack [name, requests per minute, tokens per minute, slots, tokens, least tokens, lease ms]; -1: no limit,
--          or all or nothing.
-- Returns  [1 or 0, granted tokens, then of requests and of tokens: fits, left, reset ms, wait ms; slots left].
--          A wait of -1 never ends: the cost is larger than the whole limit.

local HOLD_WAIT_S = 1

local name, per_minute, tokens_per_minute, slots, cost, least, lease_ms = unpack(cmsgpack.unpack(ARGV[1]))
local holds_something = tokens_per_minute >= 0 or slots >= 0
local account = open_account(holds_something)
local now = now_s()
local requests, tokens = account.requests, account.tokens
local requests_fit, tokens_fit, slot_fits, granted = true, true, true, 0

if per_minute >= 0 then
  requests.limit = per_minute
  advance_window(requests, now)
  requests_fit = requests.total < per_minute
end
if tokens_per_minute >= 0 then
  tokens.limit = tokens_per_minute
  advance_tokens(account, now)
end
reap(account, now, lease_ms)
local function left_of_tokens()
  return math.max(0, tokens.limit - tokens.total - account.reserved)
end
if tokens_per_minute >= 0 then
  granted = cost
  if least >= 0 then granted = math.min(cost, math.max(least, left_of_tokens())) end
  tokens_fit = account.debt == 0 and tokens.total + account.reserved + granted <= tokens.limit
end
if slots >= 0 then slot_fits = account.open < slots end

local admitted = requests_fit and tokens_fit and slot_fits
if admitted then
  if per_minute >= 0 then spend(requests, 1) end
  if holds_something then
    account.reserved = account.reserved + granted
    account.open = account.open + 1
    local lease_end = math.floor(now * 1000) + lease_ms
    redis.call('ZADD', KEYS[2], lease_end, name .. ':' .. string.format('%d', granted))
  end
end
close_account(account)

local function reset_s(window, owed)
  if window.total == 0 then return 0 end
  if owed > 0 then return freed_s(window, now, window.total + owed) end
  return window.spent_second + SPAN - now
end

local function requests_wait_s()
  if requests_fit then return 0 end
  if requests.limit < 1 then return nil end
  return freed_s(requests, now, requests.total + 1 - requests.limit)
end

local function tokens_wait_s()
  if tokens_fit then return 0 end
  if granted > tokens.limit then return nil end
  local over = tokens.total + account.debt + account.reserved + granted - tokens.limit
  if tokens.total > 0 and over <= tokens.total + account.debt then return freed_s(tokens, now, over) end
  over = over - account.reserved
  if tokens.total == 0 or over <= 0 then return HOLD_WAIT_S end
  return math.max(HOLD_WAIT_S, freed_s(tokens, now, over))
end

local function wait_ms(wait_s)
  return wait_s and to_ms(wait_s) or -1
end

local tokens_reset_s = reset_s(tokens, account.debt)
if account.reserved > 0 then tokens_reset_s = math.max(tokens_reset_s, SPAN) end
return {
  admitted and 1 or 0, granted,
  requests_fit and 1 or 0, math.max(0, requests.limit - requests.total), to_ms(reset_s(requests, 0)),
  wait_ms(requests_wait_s()),
  tokens_fit and 1 or 0, left_of_tokens(), to_ms(tokens_reset_s), wait_ms(tokens_wait_s()),
  math.max(0, slots - account.open),
}
