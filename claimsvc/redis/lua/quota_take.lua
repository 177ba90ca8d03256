-- Count requests against quotas: GCRA (generic cell rate algorithm), by this server's clock.
-- KEYS: claim:quota:<digest>, each once. ARGV, for each key: how many requests; the microseconds after which one more is
-- allowed; and how many are allowed at once. A key holds the time (microseconds) at which its quota is full again.
-- Returns two numbers for each key: how many requests are allowed now, of which the first are these; and the microseconds
-- until one more is allowed. They are the same for all requests of a key, whether they are counted or refused.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
for place, key in ipairs(KEYS) do
    local interval = tonumber(ARGV[3 * place - 1])
    local window = interval * tonumber(ARGV[3 * place])
    local full_at = tonumber(redis.call('GET', key) or now)
    -- A time beyond the window was written before the clock was set back: ignore it.
    if full_at < now or full_at > now + window then
        full_at = now
    end
    local left = window - (full_at - now)
    local allowed = math.floor(left / interval)
    local counted = math.min(allowed, tonumber(ARGV[3 * place - 2]))
    if counted > 0 then
        full_at = full_at + counted * interval
        -- Not with tostring, which keeps only 14 of the 16 digits.
        redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    end
    answer[2 * place - 1] = allowed
    answer[2 * place] = interval - left % interval
end
return answer
