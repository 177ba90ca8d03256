-- Put an answer into the inbox of the instance that handed a batch over.
--
-- KEYS: the inbox, claim:inbox:<instance>. ARGV: the message; how long it is kept (milliseconds).
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
