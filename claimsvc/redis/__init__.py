"""Everything stored on the Redis masters: locks, counters, rate limits, and the Lua scripts for them."""
