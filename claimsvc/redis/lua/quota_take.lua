-- Count requests against quotas: GCRA (generic cell rate algorithm), by this server's clock.
-- KEYS: claim:quota:<digest>, one for each request. ARGV[1]: for each request a digit, the number of its quota. Then for
-- each quota: the microseconds after which one more request is allowed, and how many are allowed at once. A key holds the
-- time (microseconds) at which its quota is full again.
-- Returns three numbers for each request: 1 if it is refused, else 0; how many more are allowed now; and the
-- microseconds until one more is allowed.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local numbers = ARGV[1]
local answer = {}
for place, key in ipairs(KEYS) do
    local quota = string.byte(numbers, place) - 48
    local interval = tonumber(ARGV[2 * quota])
    local window = interval * tonumber(ARGV[2 * quota + 1])
    local full_at = tonumber(redis.call('GET', key) or now)
    -- A time beyond the window was written before the clock was set back: ignore it.
    if full_at < now or full_at > now + window then
        full_at = now
    end
    local left = window - (full_at - now)
    local refused = left < interval
    if not refused then
        left = left - interval
        full_at = full_at + interval
        -- Not with tostring, which keeps only 14 of the 16 digits.
        redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    end
    answer[3 * place - 2] = refused and 1 or 0
    answer[3 * place - 1] = math.floor(left / interval)
    answer[3 * place] = interval - left % interval
end
return answer
