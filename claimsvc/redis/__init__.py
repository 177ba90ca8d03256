"""Everything kept on the Redis masters: the lock, counters, the rate limiter and their Lua scripts."""
