-- Delete a count, unless it has changed. KEYS: claim:stock:{<name>}. ARGV: the count that was read before.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
