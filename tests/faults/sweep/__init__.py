"""The crash-point sweep: one claim, and several at once, with a failure at every boundary with the outside in turn.

`run_sweep` does it all; `python -m tests.faults.sweep --help`.
"""

from tests.faults.sweep.lane import Result
from tests.faults.sweep.sweep import AWAITS, BREAKS, CANCELS, DEATHS, LATE, Plan, run_sweep, sweep

__all__ = ["AWAITS", "BREAKS", "CANCELS", "DEATHS", "LATE", "Plan", "Result", "run_sweep", "sweep"]
