"""The values counted since the process started, as plain numbers, for the console.

The console reads them frequently. Prometheus's `collect` creates an object for each of thousands of samples, and costs
a hundred times as much.
"""

import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from operator import add

from claimsvc.domain.outcomes import ClaimOutcome, rows
from claimsvc.observability.metrics.families import BUCKETS
from claimsvc.observability.metrics.prometheus_values import bucket_counts_of, series_of, sum_of, value_of
from claimsvc.observability.metrics.registry import Metrics

Numbers = dict[str, float]
"""Numbers by name; a missing one is 0."""

LATENCY_BOUNDS = (*BUCKETS, float("inf"))
"""Upper bounds of `Totals.latency`, in seconds."""

SLOW_SECONDS = 0.25
"""The objective of latency: claims decided later are slow. A bound of the histogram, as in `dashboards/rules`."""

# Claims that nothing was decided about; `dashboards/rules/objectives.yml` leaves out the same. The last two are no
# answers to anybody: another instance decides the ticket, or it waits on.
_UNDECIDED = {
    *("lock-busy", "unavailable", "internal-error", "cancelled", "unknown-coupon"),
    *("lease-lost", "waits-for-units"),
}
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Totals:
    """The values at one moment. All are counters, except those described as current.

    Args:
        at: when they were read, in monotonic seconds.
        coupons: for each coupon with a label: claims by outcome, grouped as operators see them (`seen_as`), lock
            attempts by result (`attempts-acquired`, `attempts-busy`, `attempts-unavailable`), `waits`, `wait_seconds`,
            `holds`, `hold_seconds`, `retries`, and `lost`.
        held: coupons whose lock is held; current.
        process: `transactions`, `transaction_seconds`, `violations`, `lag_seconds` (the event loop's); those of the
            objectives, as Prometheus's rules count them: `requests` and `failed` (with a 5xx), `decided` and `slow`
            (later than `SLOW_SECONDS`); current: `waiting`, `lock_waiters`, `pool_in_use`, `pool_idle` (of the pool for
            claims).
        latency: claims answered, by bucket of `LATENCY_BOUNDS`.
        masters: for each master whether it is up (current), the number of calls, and the seconds spent in them.
    """

    at: float
    coupons: dict[str, Numbers]
    held: frozenset[str]
    process: Numbers
    latency: list[float]
    masters: dict[str, tuple[bool, int, float]]


def read_totals(metrics: Metrics) -> Totals:
    """Return the current values of `metrics`, of this process only."""
    transactions = metrics.families.transaction
    latency, decided = _latency(metrics)
    fast = bisect_right(LATENCY_BOUNDS, SLOW_SECONDS)
    return Totals(
        at=time.monotonic(),
        coupons=_coupons(metrics),
        held=metrics.held_locks.names(),
        process={
            "transactions": sum(bucket_counts_of(transactions)),
            "transaction_seconds": sum_of(transactions),
            "violations": value_of(metrics.families.violations),
            "lag_seconds": sum_of(metrics.families.loop_lag),
            "decided": sum(decided),
            "slow": sum(decided[fast:]),
            **_requests(metrics),
            "waiting": value_of(metrics.families.waiting),
            "lock_waiters": value_of(metrics.families.waiters),
            "pool_in_use": value_of(metrics.families.pool.labels("claims", "in_use")),
            "pool_idle": value_of(metrics.families.pool.labels("claims", "idle")),
        },
        latency=latency,
        masters=_masters(metrics),
    )


_SEEN_AS = {row.name: row.seen_as for _, row in rows(ClaimOutcome)}


def _coupons(metrics: Metrics) -> dict[str, Numbers]:
    coupons: defaultdict[str, Numbers] = defaultdict(dict)
    for (coupon, _, outcome), claims in metrics.claims_by.items():
        numbers, group = coupons[coupon], _SEEN_AS.get(outcome, outcome)
        numbers[group] = numbers.get(group, 0.0) + claims.total()  # of all strategies
    for (coupon, result), attempts in metrics.attempts_by.items():
        coupons[coupon][f"attempts-{result}"] = attempts.total()
    for (coupon, _), waits in metrics.wait_by.items():
        _add(coupons[coupon], "waits", "wait_seconds", waits.total())
    for (coupon,), holds in metrics.hold_by.items():
        _add(coupons[coupon], "holds", "hold_seconds", holds.total())
    for name, counter in (("retries", metrics.families.retries), ("lost", metrics.families.lost)):
        for coupon, count in series_of(counter):
            if count:
                coupons[coupon][name] = count
    return coupons


def _add(numbers: Numbers, count_name: str, sum_name: str, total: tuple[int, float]) -> None:
    numbers[count_name] = numbers.get(count_name, 0.0) + total[0]
    numbers[sum_name] = numbers.get(sum_name, 0.0) + total[1]


def _latency(metrics: Metrics) -> tuple[list[float], list[float]]:
    """Return the claims answered by bucket, and those of them that were decided."""
    answered, decided = [0.0] * len(LATENCY_BOUNDS), [0.0] * len(LATENCY_BOUNDS)
    for labels, claims in metrics.claim_duration_by.items():
        counts = claims.buckets()
        answered = list(map(add, answered, counts))
        if _UNDECIDED.isdisjoint(labels):
            decided = list(map(add, decided, counts))
    return answered, decided


def _requests(metrics: Metrics) -> Numbers:
    requests = failed = 0.0
    for (method, route, status), tally in metrics.requests_by.items():
        if (method, route) in metrics.objective_routes:
            count = tally.total()
            requests += count
            failed += count if status >= _SERVER_ERROR else 0.0
    return {"requests": requests, "failed": failed}


def _masters(metrics: Metrics) -> dict[str, tuple[bool, int, float]]:
    # `calls.get`, because looking up unknown labels in a tally would create a series.
    calls = {name: tally.total() for (name,), tally in metrics.calls_by.items()}
    return {name: (bool(up), *calls.get(name, (0, 0.0))) for name, up in series_of(metrics.families.master_up)}
