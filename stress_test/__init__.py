"""The stress test: a client that fires claims at a running service and proves the result from outside.

It imports nothing of the service, so it runs against anything that keeps the HTTP contract. `python -m
stress_test --help` says how; `expectations` is the list of what is proven.
"""
