-- Take units of a coupon's stock. KEYS: claim:stock:{<name>}. ARGV: how many are wanted.
-- Returns how many were taken, or -1 if the count does not exist.
local count = redis.call('GET', KEYS[1])
if not count then
    return -1
end
local taken = math.max(0, math.min(tonumber(count), tonumber(ARGV[1])))
if taken > 0 then
    redis.call('DECRBY', KEYS[1], taken)
end
return taken
