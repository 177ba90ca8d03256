"""Batching: the claims that wait for a coupon in this process are admitted together, in arrival order."""

from claimsvc.claiming.batching.batcher import BUSY_ROUND, Batcher, BatchLimits
from claimsvc.claiming.batching.queues import Admit, Batch, CouponQueue, WaitingRoom, Watch, decide_next
from claimsvc.claiming.batching.refusals import lock_busy, outcome_unknown

__all__ = [
    "BUSY_ROUND",
    "Admit",
    "Batch",
    "BatchLimits",
    "Batcher",
    "CouponQueue",
    "WaitingRoom",
    "Watch",
    "decide_next",
    "lock_busy",
    "outcome_unknown",
]
