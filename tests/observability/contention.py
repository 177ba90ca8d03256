"""The stress test and every kind of contention at once, with a Prometheus that watches."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis

from tests.faults.injectors.masters import forget_keys
from tests.observability.stage import WatchedStage, watched_stage

HOT = "hot"
"""Claimed from every instance, as fast as its clients get answers."""
HELD = "held"
"""Its lock is held by nobody of ours, so its claims give up with stock left."""
DRIFTING = "drifting"
"""Its counter in Redis said too little, and was set right."""
SOLD_OUT = "scarce"
"""Has no units left."""

_SETTINGS = {
    # A drift is to be found within the test: by two looks, the second when a claim's patience is over.
    "CLAIMSVC_RECONCILE_SECONDS": "1",
    "CLAIMSVC_CLAIM_PATIENCE_SECONDS": "2",
}
_DRIFT_UNITS = 7


@asynccontextmanager
async def contended_stage(
    *, workers: Sequence[int] = (1, 2), rule_files: Sequence[Path] = ()
) -> AsyncIterator[WatchedStage]:
    """A stage on which everything that the metrics tell of has just happened, and load goes on.

    The stress test has passed; three workers want one coupon; locks were lost; a counter has drifted; a stranger holds
    a lock, so that claims give up; and one of three masters hangs.

    Args:
        workers, rule_files: see `watched_stage`.
    """
    async with watched_stage(workers=workers, rule_files=rule_files, settings=_SETTINGS) as watched:
        stage, prometheus = watched.stage, watched.prometheus
        await stage.create_coupon(10_000_000, name=HOT)
        await stage.create_coupon(10_000, name=HELD)
        await stage.create_coupon(10_000, "counter", name=DRIFTING)
        await stage.create_coupon(10_000_000, "row_lock", name="by-row")
        await stage.create_coupon(20, name=SOLD_OUT)
        async with watched.load([HOT, "by-row", SOLD_OUT], clients=12, per_second=200):
            async with watched.load([HELD, DRIFTING], clients=24, per_second=60):
                for coupon in (HELD, DRIFTING):  # until every worker has a label for them
                    claimed = f'claimsvc_claims_total{{coupon="{coupon}", outcome="claimed"}}'
                    await prometheus.until(f"count({claimed} >= 5) == {len(workers)}")
            await _drift(watched)
            while not await watched.query("sum(claimsvc_lock_lost_total) > 0"):
                forget_keys(stage.masters)
                await asyncio.sleep(0.05)
            await watched.stress("flash-sale", "--claims", "60", "--quota", "5")
            with watched.held_by_a_stranger(HELD):
                async with watched.load([HELD], clients=4):
                    await prometheus.until(f'claimsvc_claims_total{{coupon="{HELD}", outcome="lock-busy"}} > 0')
                    stage.masters[-1].pause()
                    try:
                        await prometheus.until("claimsvc_redis_master_up == 0")
                        yield watched
                    finally:
                        stage.masters[-1].resume()


async def _drift(watched: WatchedStage) -> None:
    """Take units from a count until that was set right by a worker which has a label for the coupon."""
    for _ in range(5):
        async with watched.load([DRIFTING], clients=12, per_second=60):
            while not _take_from_count(watched):
                await asyncio.sleep(0.05)
        with suppress(TimeoutError):
            await watched.prometheus.until("abs(claimsvc_counter_drift) > 0", 8)
            return
    raise AssertionError("no worker tells of the drift")


def _take_from_count(watched: WatchedStage) -> bool:
    """Take units from the count in Redis, as a crash at the wrong moment does. Whether there was a count."""
    key = f"claim:stock:{{{DRIFTING}}}"
    for master in watched.stage.masters:
        with redis.Redis.from_url(master.url) as client:
            if client.exists(key):
                client.decrby(key, _DRIFT_UNITS)
                return True
    return False
