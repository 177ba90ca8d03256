"""Drills: failures are staged on real servers, and the alert, its time, and what the runbook's first command prints are
seen.

`python -m tests.observability.drills` runs them in real time and writes the table of the runbook.
"""
