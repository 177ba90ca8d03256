"""The stress test and every kind of contention at once, and what panels and rules say of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import redis

from tests.observability.dashboards.panels import Panel, marks, panels, substituted
from tests.observability.dashboards.prometheus import Sample
from tests.observability.dashboards.watched_cluster import WatchedCluster
from tests.support.alert_rules import alerts, recordings
from tests.support.injectors.masters import forget_keys
from tests.support.waiting import until

HOT = "hot"
"""Claimed from every instance, as fast as its clients get answers."""
HELD = "held"
"""Its lock is held by nobody of ours, so its claims give up with stock left."""
DRIFTING = "drifting"
"""Its counter in Redis said too little, and was set right."""
SOLD_OUT = "scarce"
"""Has no units left, and its lock is held by nobody of ours either."""

QUEUED = "in-line"
"""Has a queue that more join than it serves, so that some of its tickets expire."""

PAUSED = "halted"
"""Somebody has paused it."""

SERIES = re.compile(r"(?<![\w:])(?:claimsvc_\w+|job\w*:[\w:]+|up)(?![\w:])")
"""The series that an expression of a rule asks for."""

_DRIFT_UNITS = 7
_QUEUE = {"rate_per_second": 5, "concurrency": 5, "max_wait_seconds": 4, "max_length": 1000}


@dataclass(frozen=True, slots=True)
class Seen:
    """What Prometheus answered.

    Args:
        panels: each panel with one of its expressions, and the answer.
        marks: what the dashboards' annotations said when the instances had just begun.
        recorded: the series of each recording rule.
        firing: the answer to the expression of each alert.
        rules: each rule with its health, as Prometheus tells it.
        missing: series that an alert is made from, and that are not there.
    """

    panels: Sequence[tuple[Panel, str, Sequence[Sample]]]
    marks: Sequence[Sequence[Sample]]
    recorded: Mapping[str, Sequence[Sample]]
    firing: Mapping[str, Sequence[Sample]]
    rules: Mapping[str, Mapping[str, Any]]
    missing: Sequence[str]


async def contended(watched: WatchedCluster) -> Seen:
    """Have everything happen that the metrics tell of, and ask for all that is told."""
    prometheus = watched.prometheus
    async with _trouble(watched):
        for name in recordings():
            await prometheus.until(f"{name} > -1000000")
        [refused] = [panel for panel in panels() if panel.title == "Refused, though no known instance holds it"]

        async def is_of_one() -> bool:
            [(_, _, found)] = await _asked(watched, refused)
            return [each.labels["coupon"] for each in found] == [HELD]

        # Until what was before is out of sight: the test coupons were contended a moment ago.
        await until(is_of_one, f"{refused.title} to tell of {HELD} alone", within_seconds=60)
        told = {rule["name"]: rule for rule in await prometheus.rules()}
        return Seen(
            panels=[answer for panel in panels() for answer in await _asked(watched, panel)],
            marks=[
                await prometheus.query(substituted(mark, rate_interval="", time_range=""), at=watched.complete_at)
                for mark in marks()
            ],
            recorded={name: await prometheus.query(name) for name in recordings()},
            firing={name: await prometheus.query(told[name]["query"]) for name in alerts()},
            rules=told,
            missing=[
                f"{series} of {name}"
                for name, rule in alerts().items()
                for series in sorted(set(SERIES.findall(rule["expr"])))
                if not await prometheus.query(f"count(last_over_time({series}[30s]))")
            ],
        )


async def _asked(watched: WatchedCluster, panel: Panel) -> list[tuple[Panel, str, Sequence[Sample]]]:
    asked = [substituted(target["expr"], rate_interval="10s", time_range="2m") for target in panel.targets]
    return [(panel, expression, await watched.query(expression)) for expression in asked]


@asynccontextmanager
async def _trouble(watched: WatchedCluster) -> AsyncIterator[None]:
    """Everything that the metrics tell of has just happened, and load goes on.

    The stress test has passed; four workers want one coupon; locks were lost; a counter has drifted; a stranger holds
    two locks, so that claims of one coupon give up with stock left; a queue is longer than it serves; and one of three
    masters hangs.
    """
    cluster, prometheus = watched.cluster, watched.prometheus
    await cluster.create_coupon(10_000_000, name=HOT)
    await cluster.create_coupon(10_000, name=HELD)
    await cluster.create_coupon(10_000, "counter", name=DRIFTING)
    await cluster.create_coupon(10_000_000, "row_lock", name="by-row")
    await cluster.create_coupon(20, name=SOLD_OUT)
    await cluster.create_coupon(10_000, name=PAUSED)
    await watched.change(PAUSED, paused=True)
    await cluster.create_coupon(10_000_000, name=QUEUED)
    await watched.change(QUEUED, queue=_QUEUE)
    async with (
        watched.queueing(QUEUED, per_second=15),
        watched.load([HOT, "by-row", SOLD_OUT, PAUSED], clients=12, per_second=240),
    ):
        async with watched.load([HELD, DRIFTING], clients=24, per_second=60):
            for coupon in (HELD, DRIFTING):  # until every instance has a label for them
                claimed = f'claimsvc_claims_total{{coupon="{coupon}", outcome="claimed"}}'
                await prometheus.until(f"count({claimed} >= 5) == {len(watched.instances)}")
        await prometheus.until(f'claimsvc_tickets_total{{coupon="{QUEUED}", end="expired"}} > 0')
        await _drift(watched)
        while not await watched.query("sum(claimsvc_lock_lost_total) > 0"):
            forget_keys(cluster.masters)
            await asyncio.sleep(0.05)
        await watched.stress("flash-sale", "--claims", "60", "--quota", "5")
        with watched.held_by_a_stranger(HELD), watched.held_by_a_stranger(SOLD_OUT):
            async with watched.load([HELD, SOLD_OUT], clients=8):
                await prometheus.until(f'claimsvc_claims_total{{coupon="{HELD}", outcome="lock-busy"}} > 0')
                cluster.masters[-1].pause()
                try:
                    await prometheus.until(f"count(claimsvc_redis_master_up == 0) == {len(watched.instances)}")
                    yield
                finally:
                    cluster.masters[-1].resume()


async def _drift(watched: WatchedCluster) -> None:
    """Take units from a count until that was set right by a worker which has a label for the coupon."""
    for _ in range(5):
        async with watched.load([DRIFTING], clients=12, per_second=60):
            while not _take_from_count(watched):
                await asyncio.sleep(0.05)
        with suppress(TimeoutError):
            await watched.prometheus.until("abs(claimsvc_counter_drift) > 0", 8)
            return
    raise AssertionError("no worker tells of the drift")


def _take_from_count(watched: WatchedCluster) -> bool:
    """Take units from the count in Redis, as a crash at the wrong moment does. Whether there was a count."""
    key = f"claim:stock:{{{DRIFTING}}}"
    for master in watched.cluster.masters:
        with redis.Redis.from_url(master.url) as client:
            if client.exists(key):
                client.decrby(key, _DRIFT_UNITS)
                return True
    return False
