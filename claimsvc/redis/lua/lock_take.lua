-- Take several locks at once: each that is free and is nobody's turn.
--
-- KEYS: the locks, claim:coupon:<name>. ARGV: our token; their life (milliseconds).
-- Returns for each key 1, taken, or 0.
local taken = {}
for i, key in ipairs(KEYS) do
    local name = string.sub(key, #'claim:coupon:' + 1)
    local is_free = redis.call('EXISTS', 'claim:turn:' .. name) == 0
    taken[i] = (is_free and redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2])) and 1 or 0
end
return taken
