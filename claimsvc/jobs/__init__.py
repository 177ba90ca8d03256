"""Background jobs: each is a function that makes one pass, and a loop calls it on a schedule."""

from claimsvc.jobs.exclusive import run_exclusively
from claimsvc.jobs.loop import event_loop_watched, repeated
from claimsvc.jobs.purge import purge, purgeable
from claimsvc.jobs.reconcile import Drift, reconcile
from claimsvc.jobs.schedule import Jobs, Schedule
from claimsvc.jobs.sweep import sweep

__all__ = [
    "Drift",
    "Jobs",
    "Schedule",
    "event_loop_watched",
    "purge",
    "purgeable",
    "reconcile",
    "repeated",
    "run_exclusively",
    "sweep",
]
