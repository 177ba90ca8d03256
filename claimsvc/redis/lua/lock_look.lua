-- Tell what is known of locks; nothing is changed.
--
-- KEYS: the locks, claim:coupon:<name>. ARGV: how many instances of each line are told of, at most.
-- Returns this master's clock (microseconds), and for each key: its token (nil if it is free), its life that is left
-- (milliseconds), whose turn it is (nil if nobody's), and the line: an instance and since when it waits, in turns.
local time = redis.call('TIME')
local told = {string.format('%d%06d', time[1], time[2])}
for _, key in ipairs(KEYS) do
    local name = string.sub(key, #'claim:coupon:' + 1)
    told[#told + 1] = {
        redis.call('GET', key),
        redis.call('PTTL', key),
        redis.call('GET', 'claim:turn:' .. name),
        redis.call('ZRANGE', 'claim:waiting:' .. name, 0, ARGV[1] - 1, 'WITHSCORES'),
    }
end
return told
