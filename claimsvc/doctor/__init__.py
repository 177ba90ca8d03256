"""Checks everything that the service depends on, and reports one line per finding with its remedy.

All checks run, regardless of what the others find, and each has a time limit. Facts about the servers are collected
first; pure functions then judge them.
"""

from claimsvc.doctor.examination import examine, examine_database
from claimsvc.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "examine", "examine_database"]
