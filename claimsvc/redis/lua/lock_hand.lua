-- Hand a batch of claims to the holder of their coupon's lock.
--
-- KEYS: the lock, claim:coupon:<name>. ARGV: the message; how long it is kept (milliseconds); most messages that may
-- wait for a holder.
-- Returns the holder's instance, or an empty string if nothing was handed over: the lock is free, its holder does not
-- combine, or too many messages wait for it.
local token = redis.call('GET', KEYS[1])
local holder = token and string.match(token, '^(.*)/%+')
if not holder then
    return ''
end
local inbox = 'claim:inbox:' .. holder
if redis.call('LLEN', inbox) >= tonumber(ARGV[3]) then
    return ''
end
redis.call('RPUSH', inbox, ARGV[1])
redis.call('PEXPIRE', inbox, ARGV[2])
return holder
