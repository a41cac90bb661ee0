-- How upstreams stand in all processes: takes in what one of them has to tell, and tells it how all stand.
--
-- KEYS[1]  breakers: a hash of "opening state until_ms holder lease_until_ms lease_ms" by upstream. `opening` names the
--          open period and the half-open time after it; `holder` is the process whose probe is out, or -
-- KEYS[2]  the operators' word: a hash of "change 0|1" by upstream, 1 where it is isolated
-- ARGV[1]  msgpack [process, longest open period in ms, upstreams, news], news being a list of [kind, upstream, name, ms]:
--            open     the period `name` has begun, and lasts for so many ms
--            close    a probe after the period `name` succeeded
--            claim    may I send the probe, which takes so many ms at most?
--            release  my probe ended without a result
--            isolate  the change `name`: 1 or 0 in the place of ms
-- Returns  [whether a claim was granted,
--           msgpack of a list of [opening, is open, ms left of it, ms left of another's lease, change, isolated]].
--
-- All instants are this server's. What cannot be read as ours is as good as absent, and no end is further away than a
-- process says that it may be, so that neither junk nor a clock that leaps keeps an upstream out for long.

local MAX_LEASE_MS = 3600000
local KEPT_MS = 3600000  -- breakers, after the last process has gone

local process, longest_ms, upstreams, news = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
end

local function read(upstream)
  local text = redis.call('HGET', KEYS[1], upstream)
  local pattern = '^([%w-]+) (%l+) (%d+) ([%w-]+) (%d+) (%d+)$'
  local opening, state, until_ms, holder, lease_until_ms, lease_ms = string.match(text or '', pattern)
  if not opening or #text > 200 or (state ~= 'open' and state ~= 'closed') then return nil end
  lease_ms = math.min(tonumber(lease_ms), MAX_LEASE_MS)
  return {
    opening = opening,
    is_open = state == 'open',
    until_ms = math.min(tonumber(until_ms), now_ms + longest_ms),
    holder = holder,
    lease_until_ms = math.min(tonumber(lease_until_ms), now_ms + lease_ms),
    lease_ms = lease_ms,
    text = text,
  }
end

local function write(upstream, record)
  local text = string.format('%s %s %.0f %s %.0f %.0f', record.opening, record.is_open and 'open' or 'closed',
    record.until_ms, record.holder, record.lease_until_ms, record.lease_ms)
  if text ~= record.text then redis.call('HSET', KEYS[1], upstream, text) end
end

local function period(opening, ms)
  return {
    opening = opening, is_open = true, until_ms = now_ms + math.min(ms, longest_ms),
    holder = '-', lease_until_ms = 0, lease_ms = 0,
  }
end

local function free(record)
  record.holder, record.lease_until_ms, record.lease_ms = '-', 0, 0
end

local function is_taken(record)
  return record.holder ~= '-' and record.holder ~= process and record.lease_until_ms > now_ms
end

local granted = 0
local told = {}

function told.open(record, opening, ms)
  if record and record.opening == opening and not record.is_open then return record end  -- it is said again, too late
  if not record or record.opening ~= opening and (not record.is_open or record.until_ms <= now_ms) then
    return period(opening, ms)
  end
  if now_ms + ms > record.until_ms then
    record.opening, record.until_ms = opening, now_ms + math.min(ms, longest_ms)
  end
  return record
end

function told.close(record, opening)
  record = record or period(opening, 0)
  if record.opening == opening then  -- else somebody has opened it anew
    record.is_open = false
    free(record)
  end
  return record
end

function told.claim(record, opening, ms)
  record = record or period(opening, 0)
  if record.is_open and record.until_ms <= now_ms and not is_taken(record) then
    ms = math.min(ms, MAX_LEASE_MS)
    record.holder, record.lease_until_ms, record.lease_ms = process, now_ms + ms, ms
    granted = 1
  end
  return record
end

function told.release(record)
  if record and record.holder == process then free(record) end
  return record
end

for _, item in ipairs(news) do
  local kind, upstream, name, number = unpack(item)
  if kind == 'isolate' then
    redis.call('HSET', KEYS[2], upstream, string.format('%s %d', name, number))
  else
    local record = told[kind](read(upstream), name, number)
    if record then write(upstream, record) end
  end
end

local reply = {}
for at, upstream in ipairs(upstreams) do
  local record = read(upstream)
  local change, isolated = string.match(redis.call('HGET', KEYS[2], upstream) or '', '^([%w-]+) ([01])$')
  if change and #change > 100 then change = nil end
  local opening, is_open, left_ms, lease_ms = '', false, 0, 0
  if record then
    write(upstream, record)  -- where an end was too far away
    opening, is_open, left_ms = record.opening, record.is_open, math.max(0, record.until_ms - now_ms)
    if is_taken(record) then lease_ms = record.lease_until_ms - now_ms end
  end
  reply[at] = {opening, is_open, left_ms, lease_ms, change or '', change ~= nil and isolated == '1'}
end
redis.call('PEXPIRE', KEYS[1], KEPT_MS)
return {granted, cmsgpack.pack(reply)}
