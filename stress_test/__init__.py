"""The stress test: a client that sends claims to a running service and verifies the result from outside.

It imports nothing of the service, so it runs against any implementation of the HTTP contract. See `python -m
stress_test --help` for its use, and `expectations` for what it verifies.
"""
