-- Join the line of instances that wait for a lock, unless it is free for us to take.
--
-- KEYS: the lock, claim:coupon:<name>. ARGV: our instance; since when we wait (microseconds of this master's clock, or
-- an empty string the first time); how long our place is kept (milliseconds).
-- Returns since when we wait, or an empty string if the lock is free and it is nobody else's turn.
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
local line = 'claim:waiting:' .. name
redis.call('ZADD', line, since, ARGV[1])
redis.call('PEXPIRE', line, ARGV[3])
return since
