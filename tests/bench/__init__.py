"""Performance, side by side: one run, one machine, the same PostgreSQL and masters for everybody.

`python -m tests.bench` starts everything, measures each contestant in interleaved rounds, prints tables and writes
them as JSON and as a picture. It judges nothing: times are the machine's, only ratios within one run mean anything.
"""
