-- Hand a batch of claims to the holder of their coupon's lock.
--
-- KEYS: the lock, claim:coupon:<name>. ARGV: the message; the caller's instance.
-- Returns 'sent'; 'free' or 'reserved' (for another instance) if nobody holds the lock; 'held' if its holder does not
-- combine, or does not listen on this master.
--
-- The other keys are computed, not declared: masters of a Redlock are independent servers, not a cluster.
local token = redis.call('GET', KEYS[1])
if not token then
    local name = string.sub(KEYS[1], #'claim:coupon:' + 1)
    local whose_turn = redis.call('GET', 'claim:turn:' .. name)
    return (whose_turn and whose_turn ~= ARGV[2]) and 'reserved' or 'free'
end
local holder = string.match(token, '^(.*)/%+')
if not holder or holder == ARGV[2] or redis.call('PUBLISH', 'claim:inbox:' .. holder, ARGV[1]) == 0 then
    return 'held'
end
return 'sent'
