-- Hand a batch of claims to the holder of their coupon's lock.
--
-- KEYS: the lock, claim:coupon:<name>. ARGV: the message; the caller's instance; how long the message is kept
-- (milliseconds); most messages that may wait for a holder.
-- Returns 'sent'; 'free' or 'reserved' (for another instance) if nobody holds the lock; 'held' if its holder does not
-- combine, or too many messages wait for it.
--
-- The other keys are computed, not declared: masters of a Redlock are independent servers, not a cluster.
local token = redis.call('GET', KEYS[1])
if not token then
    local name = string.sub(KEYS[1], #'claim:coupon:' + 1)
    local whose_turn = redis.call('GET', 'claim:turn:' .. name)
    return (whose_turn and whose_turn ~= ARGV[2]) and 'reserved' or 'free'
end
local holder = string.match(token, '^(.*)/%+')
if not holder or holder == ARGV[2] then
    return 'held'
end
local inbox = 'claim:inbox:' .. holder
if redis.call('LLEN', inbox) >= tonumber(ARGV[4]) then
    return 'held'
end
redis.call('RPUSH', inbox, ARGV[1])
redis.call('PEXPIRE', inbox, ARGV[3])
return 'sent'
