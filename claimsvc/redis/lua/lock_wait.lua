-- Join the wait queue of a lock, unless the lock is free for the caller to take.
--
-- KEYS: the lock, claim:coupon:<name>. ARGV: the caller's instance; when it began to wait (microseconds of this
-- master's clock, or an empty string the first time); the TTL of the queue (milliseconds).
-- Returns when the instance began to wait, or an empty string if the lock is free and not reserved for another.
local name = string.sub(KEYS[1], #'claim:coupon:' + 1)
local whose_turn = redis.call('GET', 'claim:turn:' .. name)
if redis.call('EXISTS', KEYS[1]) == 0 and (not whose_turn or whose_turn == ARGV[1]) then
    return ''
end
local since = ARGV[2]
if since == '' then
    local time = redis.call('TIME')
    since = string.format('%d%06d', time[1], time[2])
end
local queue = 'claim:waiting:' .. name
redis.call('ZADD', queue, since, ARGV[1])
redis.call('PEXPIRE', queue, ARGV[3])
return since
