-- Keep counts of codes, unless newer ones are kept. KEYS: claim:codes:{<type>}. ARGV: the number under which the count
-- was begun, for how many seconds the counts are kept, and then they.
-- Returns 0 if the number is not one of this master's, which has forgotten what it knew; else 1.
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
