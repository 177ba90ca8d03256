"""A model checker for lock, batching and hand-over: the real code on a simulated clock, network and database.

This is the one place of the tests in which Redis and PostgreSQL are not real. What runs is the service's own code, from
the strategy of a claim down to the commands that are sent to a master; what is simulated is everything outside the
process, so that thousands of orders of events and faults can be tried in a minute, and one that fails can be repeated
and made smaller. `tests/simulation/test_masters.py` holds the simulated master against a real one.

`python -m tests.simulation --seeds 10000` explores; `--seed 7` repeats one.
"""
