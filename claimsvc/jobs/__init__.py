"""What goes on in the background: single passes that a test can call, and dull loops that call them."""

from claimsvc.jobs.exclusive import run_alone
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
    "run_alone",
    "sweep",
]
