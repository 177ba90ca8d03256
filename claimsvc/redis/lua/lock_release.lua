-- Release locks: delete each key that still has the caller's token, and wake the instance that has waited longest.
--
-- KEYS: the locks, claim:coupon:<name>. ARGV: the token; how long the lock is reserved for the woken instance, and how
-- long its hint is kept (both in milliseconds); the instance to wake if none waits, or an empty string.
-- Returns for each key: 0 if the token did not match; 1 if released; 2 if released and an instance was woken.
--
-- The other keys are computed from the name, not declared: masters of a Redlock are independent servers, not a cluster.
local given_back = {}
for i, key in ipairs(KEYS) do
    given_back[i] = 0
    if redis.call('GET', key) == ARGV[1] then
        redis.call('DEL', key)
        local name = string.sub(key, #'claim:coupon:' + 1)
        local turn = 'claim:turn:' .. name
        local next_instance = redis.call('ZPOPMIN', 'claim:waiting:' .. name)[1]
        if not next_instance and ARGV[4] ~= '' then
            next_instance = ARGV[4]
        end
        if next_instance then
            local hints = 'claim:hints:' .. next_instance
            redis.call('SET', turn, next_instance, 'PX', ARGV[2])
            redis.call('RPUSH', hints, name)
            redis.call('PEXPIRE', hints, ARGV[3])
            given_back[i] = 2
        else
            redis.call('DEL', turn)
            given_back[i] = 1
        end
    end
end
return given_back
