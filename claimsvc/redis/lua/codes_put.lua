-- Store counts of codes, unless newer ones are stored. KEYS: claim:codes:{<type>}. ARGV: the number of this count, the
-- TTL (seconds), then the four counts.
-- Returns 0 if this master never issued the number, because it has lost its data since; else 1.
local begun = tonumber(redis.call('HGET', KEYS[1], 'begun') or 0)
local number = tonumber(ARGV[1])
if number > begun then
    return 0
end
if number > tonumber(redis.call('HGET', KEYS[1], 'number') or 0) then
    redis.call('HSET', KEYS[1], 'number', ARGV[1], 'uploaded', ARGV[3], 'claimed', ARGV[4], 'redeemed', ARGV[5],
        'voided', ARGV[6])
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 1
