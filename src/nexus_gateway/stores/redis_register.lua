-- Counts the processes that share the limits, and tells whether the server still has its memory.
--
-- KEYS[1]  the processes: a sorted set of names by the instant, in ms, at which they count as gone
-- KEYS[2]  a name for the present contents of the server, given by whoever finds none
-- ARGV[1]  msgpack [process, its lifetime in ms (0: it takes its leave), a name for the contents if they have none]
-- Returns  [processes, name of the contents].

local process, lifetime_ms, contents = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local until_ms = now_ms + lifetime_ms

if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then redis.call('DEL', KEYS[1]) end
if redis.call('TYPE', KEYS[2]).ok ~= 'string' then redis.call('DEL', KEYS[2]) end

redis.call('ZADD', KEYS[1], until_ms, process)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
if lifetime_ms > 0 then  -- a longer life than ours was given before the clock stepped back
  redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%d', until_ms), '+inf')
end
redis.call('SETNX', KEYS[2], contents)
return {redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[2])}
