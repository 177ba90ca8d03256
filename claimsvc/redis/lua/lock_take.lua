-- Take several locks: each that is free and not reserved for a woken instance.
--
-- KEYS: the locks, claim:coupon:<name>. ARGV: the token; the TTL (milliseconds).
-- Returns for each key: 1 if taken, else 0.
local taken = {}
for i, key in ipairs(KEYS) do
    local name = string.sub(key, #'claim:coupon:' + 1)
    local is_free = redis.call('EXISTS', 'claim:turn:' .. name) == 0
    taken[i] = (is_free and redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2])) and 1 or 0
end
return taken
