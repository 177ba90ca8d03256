-- Read the state of locks. Changes nothing.
--
-- KEYS: the locks, claim:coupon:<name>. ARGV: most waiting instances to return for each lock.
-- Returns this master's clock (microseconds), and for each key: its token (nil if it is free), its remaining TTL
-- (milliseconds), the instance it is reserved for (nil if none), and the wait queue: instance, waiting since
-- (microseconds), instance, ...
local time = redis.call('TIME')
local answer = {string.format('%d%06d', time[1], time[2])}
for _, key in ipairs(KEYS) do
    local name = string.sub(key, #'claim:coupon:' + 1)
    answer[#answer + 1] = {
        redis.call('GET', key),
        redis.call('PTTL', key),
        redis.call('GET', 'claim:turn:' .. name),
        redis.call('ZRANGE', 'claim:waiting:' .. name, 0, ARGV[1] - 1, 'WITHSCORES'),
    }
end
return answer
