-- Return units to a count. KEYS: claim:stock:{<name>}. ARGV: how many. Does nothing if the count does not exist.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
redis.call('INCRBY', KEYS[1], ARGV[1])
return 1
