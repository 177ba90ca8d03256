-- Give locks back: delete each key that still has our token, and wake the instance that has waited longest for it.
--
-- KEYS: the locks, claim:coupon:<name>. ARGV: our token; how long a woken instance's turn is kept for it, and how long
-- a hint stays of use (both in milliseconds).
-- Returns for each key: 0, it was not ours; 1, given back; 2, given back and an instance woken.
--
-- The other keys are made from the name, not declared: masters of a Redlock are independent servers, never a cluster.
local given_back = {}
for i, key in ipairs(KEYS) do
    given_back[i] = 0
    if redis.call('GET', key) == ARGV[1] then
        redis.call('DEL', key)
        local name = string.sub(key, #'claim:coupon:' + 1)
        local turn = 'claim:turn:' .. name
        local longest_waiting = redis.call('ZPOPMIN', 'claim:waiting:' .. name)[1]
        if longest_waiting then
            local hints = 'claim:hints:' .. longest_waiting
            redis.call('SET', turn, longest_waiting, 'PX', ARGV[2])
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
