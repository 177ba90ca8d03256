-- Put units back. KEYS: claim:stock:{<name>}. ARGV: how many. A count that is not known is not begun with them.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
redis.call('INCRBY', KEYS[1], ARGV[1])
return 1
