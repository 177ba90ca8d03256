"""Coverage-guided fuzzing of everything that reads bytes from outside: `make fuzz SECONDS=60`.

`targets` has the parsers, each with what must hold whatever it is given; `requests` has whole requests; `seeds` are the
inputs to begin with, and those that failed once. `python -m tests.fuzz` runs libFuzzer on them by atheris.
"""
