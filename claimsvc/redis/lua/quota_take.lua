-- Count requests against quotas: GCRA, by this server's clock.
-- KEYS: claim:quota:<digest>, one for each request. ARGV: for each, the microseconds after which one more is allowed,
-- and how many are allowed at once. A key holds the moment, in microseconds, at which its quota is whole again.
-- Returns for each three numbers: 1 if it is refused, else 0; how many may follow at once; and the microseconds until
-- there is one more.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
for place, key in ipairs(KEYS) do
    local interval = tonumber(ARGV[2 * place - 1])
    local window = interval * tonumber(ARGV[2 * place])
    local whole_at = tonumber(redis.call('GET', key) or now)
    -- A moment beyond the window was written before the clock was set back: it is worth nothing.
    if whole_at < now or whole_at > now + window then
        whole_at = now
    end
    local left = window - (whole_at - now)
    local refused = left < interval
    if not refused then
        left = left - interval
        whole_at = whole_at + interval
        -- Not by tostring, which keeps 14 digits of the 16.
        redis.call('SET', key, string.format('%.0f', whole_at), 'PX', math.ceil((whole_at - now) / 1000))
    end
    answer[#answer + 1] = refused and 1 or 0
    answer[#answer + 1] = math.floor(left / interval)
    answer[#answer + 1] = interval - left % interval
end
return answer
