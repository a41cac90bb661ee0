-- What one caller has spent and holds: the arithmetic of core/limiter.py, by the server's clock. Change both.
--
-- KEYS[1]  the account, packed; one that cannot be read is begun anew.
-- KEYS[2]  open holds: a sorted set of "<name>:<tokens>" by the instant, in ms, at which their lease ends.
-- Both bear the caller's id as their hash tag, so that they lie on one node of a cluster.
--
-- A window's seconds are one string of doubles: most decisions read and write one of them.
-- This part is set in front of each script that decides about an account.

local FORMAT, SPAN, WIDTH = 1, 61, 8
local EMPTY = string.rep('\0', SPAN * WIDTH)

local function now_s()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function new_window()
  return {second = 0, spent_second = 0, total = 0, limit = 0, floor = 0, spent = EMPTY}
end

local function read_window(packed)
  if not packed then return new_window() end
  local second, spent_second, total, limit, floor, spent = unpack(packed)
  assert(second >= 0 and tonumber(spent_second) and total >= 0 and limit >= 0 and floor >= 0)
  assert(#spent == SPAN * WIDTH)
  return {second = second, spent_second = spent_second, total = total, limit = limit, floor = floor, spent = spent}
end

local function write_window(window)
  if window.limit == 0 and window.total == 0 then return false end
  return {window.second, window.spent_second, window.total, window.limit, window.floor, window.spent}
end

local function spent_in(window, second)
  return (struct.unpack('<d', window.spent, second % SPAN * WIDTH + 1))
end

local function set_spent(window, second, amount)
  local at = second % SPAN * WIDTH
  window.spent = string.sub(window.spent, 1, at) .. struct.pack('<d', amount) .. string.sub(window.spent, at + WIDTH + 1)
end

local function held_tokens(member)
  return tonumber(string.match(member, ':(%d+)$')) or 0
end

local function read_account(with_holds)
  local open = with_holds and redis.call('ZCARD', KEYS[2]) or 0
  local packed = redis.call('GET', KEYS[1])
  if packed then
    local fields = cmsgpack.unpack(packed)
    assert(fields[1] == FORMAT and fields[4] >= 0 and fields[5] >= 0)
    return {requests = read_window(fields[2]), tokens = read_window(fields[3]), reserved = fields[4], debt = fields[5],
            open = open}
  end
  local reserved = 0
  if open > 0 then
    for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do reserved = reserved + held_tokens(member) end
  end
  return {requests = new_window(), tokens = new_window(), reserved = reserved, debt = 0, open = open}
end

local function open_account(with_holds)
  local read, account = pcall(read_account, with_holds)
  if read then return account end
  redis.call('DEL', KEYS[1], KEYS[2])
  return read_account(with_holds)
end

local function close_account(account)
  local debt_turns = math.ceil(account.debt / math.max(account.tokens.limit, 1))
  local kept_ms = math.min((2 + debt_turns) * SPAN * 1000, 2 ^ 40)
  redis.call('SET', KEYS[1], cmsgpack.pack({FORMAT, write_window(account.requests), write_window(account.tokens),
             account.reserved, account.debt}), 'PX', kept_ms)
  if account.open > 0 then redis.call('PEXPIRE', KEYS[2], kept_ms) end
end

local function spend_aged(window, cost, age_s)
  if age_s >= SPAN then return end
  local second = window.second - math.max(age_s, 0)
  set_spent(window, second, spent_in(window, second) + cost)
  window.total = window.total + cost
  window.spent_second = math.max(window.spent_second, second)
end

local function spend(window, cost)
  spend_aged(window, cost, 0)
end

local function move(window, seconds)
  local turned = (-seconds % SPAN) * WIDTH
  window.spent = string.sub(window.spent, turned + 1) .. string.sub(window.spent, 1, turned)
  window.spent_second = window.spent_second + seconds
  window.second = window.second + seconds
end

local function advance_window(window, now)
  local second = math.floor(now)
  local passed = second - window.second
  if passed == 0 then return end
  if passed < 0 then
    if passed < -SPAN then move(window, passed) end
    return
  end
  if window.total > 0 then
    if passed >= SPAN then
      window.spent, window.total = EMPTY, 0
    else
      for expired = window.second + 1, second do
        local amount = spent_in(window, expired)
        if amount > 0 then
          window.total = window.total - amount
          set_spent(window, expired, 0)
        end
      end
    end
  end
  window.second = second
end

local function pay(account)
  local window = account.tokens
  local free = window.limit - window.total - account.reserved
  if account.debt > 0 and free > 0 then
    local paid = math.min(account.debt, free)
    spend(window, paid)
    account.debt = account.debt - paid
  end
end

local function replay(account, second)
  local window = account.tokens
  pay(account)
  while account.debt > 0 and window.total > 0 and window.second < second do
    local turns = 0
    if window.total + account.reserved == window.limit then
      turns = math.min(math.floor((second - window.second) / SPAN), math.floor(account.debt / window.total))
    end
    if turns > 0 then
      account.debt = account.debt - turns * window.total
      window.second = window.second + turns * SPAN
      window.spent_second = window.spent_second + turns * SPAN
    else
      advance_window(window, window.second + 1)
      pay(account)
    end
  end
end

local function advance_tokens(account, now)
  if account.debt > 0 then replay(account, math.floor(now)) end
  advance_window(account.tokens, now)
end

local function freed_s(window, now, amount)
  local turns = math.floor((amount - 1) / window.total)
  local rest, expired = (amount - 1) % window.total + 1, 0
  for second = window.second + 1, window.second + SPAN do
    expired = expired + spent_in(window, second)
    if expired >= rest then return second + turns * SPAN - now end
  end
end

-- Leases that ended are settled at all they reserved, as of then: whoever held them is gone and told nobody.
-- A lease longer than any that is given is from before the clock stepped back.
local function reap(account, now, lease_ms)
  if account.open == 0 then return end
  local now_ms = math.floor(now * 1000)
  local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'WITHSCORES')
  for i = 1, #ended, 2 do
    local tokens = held_tokens(ended[i])
    account.reserved = math.max(account.reserved - tokens, 0)
    spend_aged(account.tokens, tokens, account.tokens.second - math.floor(tonumber(ended[i + 1]) / 1000))
    redis.call('ZREM', KEYS[2], ended[i])
    account.open = account.open - 1
  end
  local longest = now_ms + lease_ms
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. longest, '+inf')) do
    redis.call('ZADD', KEYS[2], longest, member)
  end
  pay(account)
end

local function to_ms(seconds)
  return math.ceil(seconds * 1000)
end
