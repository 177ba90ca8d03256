"""The fault suite: real servers and real instances of the service, load, a fault, and checks of what is left of it.

`python -m tests.faults` (`make faults`, `make soak`) runs all of it; `test_faults.py` is a quick selection.
"""
