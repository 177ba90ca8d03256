"""Whose time it is: how leaders of batches spend theirs, and what most of it is spent on."""

from collections.abc import Sequence
from dataclasses import dataclass

from claimsvc.observability.console.coupon_rows import ratio, window_seconds
from claimsvc.observability.console.picture import LOCK, POSTGRESQL, REDIS, SERVICE, Times
from claimsvc.observability.console.summary import Recent, add_up

# Who has no larger share is not to blame.
_MOST_OF_IT = 0.5
# Shorter turns do not explain long waits; the number of instances does.
LONG_TURN_MS = 25.0
_CALLS_OF_A_TURN = 2
# The lag is a mean: no answer consists of it alone.
_MOST_LATE = 0.8
# How often the event loop's lag is measured; see `claimsvc/jobs/loop.py`.
LAG_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds, and what else is known, of all instances that are heard.

    Args:
        postgresql: in transactions, those that have not ended included.
        waited: waiting for locks, likewise.
        waits, holds, hold_seconds: of locks.
        call_seconds: mean duration of a call of a master that is up.
        transactions, transaction_seconds: those that ended.
        lag_seconds: how late the event loops wake on average: every answer that is awaited waits for them, too.
    """

    postgresql: float
    waited: float
    waits: float
    holds: float
    hold_seconds: float
    call_seconds: float
    transactions: float
    transaction_seconds: float
    lag_seconds: float

    @property
    def transaction_ms(self) -> float:
        return 1000 * ratio(self.transaction_seconds, self.transactions)


def spent(spans: Sequence[Recent]) -> Spent:
    """Add up the spans of all instances that are heard."""
    figures = add_up(each.all_coupons for each in spans)
    process = add_up(each.process for each in spans)
    transaction_seconds = process.get("transaction_seconds", 0.0)
    working = [each for each in spans if each.all_coupons] or spans
    late = ratio(sum(each.process.get("lag_seconds", 0.0) for each in working), sum(map(window_seconds, working)))
    return Spent(
        postgresql=max(transaction_seconds, process.get("in_use_seconds", 0.0)),
        waited=max(figures.get("wait_seconds", 0.0), process.get("lock_waiting_seconds", 0.0)),
        waits=figures.get("waits", 0.0),
        holds=figures.get("holds", 0.0),
        hold_seconds=figures.get("hold_seconds", 0.0),
        call_seconds=_call_seconds(spans),
        transactions=process.get("transactions", 0.0),
        transaction_seconds=transaction_seconds,
        # The loop is asked every so often, and the next time only after it has answered.
        lag_seconds=LAG_SAMPLE_SECONDS * ratio(late, max(1 - late, 0.01)),
    )


def times_of(spent: Spent) -> Times:
    """Estimate the shares. An uncontended lock takes one call of Redis to take, and releasing it takes as long."""
    redis = min(spent.waited, spent.waits * spent.call_seconds)
    lock = spent.waited - redis
    total = lock + 2 * redis + spent.postgresql
    if not total:
        return Times(0.0, 0.0, 0.0, 0.0)
    shares = _attributed(spent, lock / total, 2 * redis / total, spent.postgresql / total)
    most = max(shares, key=lambda name: shares[name])
    return Times(
        **{name: round(share, 3) for name, share in shares.items()}, blame=most if shares[most] > _MOST_OF_IT else ""
    )


def _attributed(spent: Spent, lock: float, redis: float, postgresql: float) -> dict[str, float]:
    """Give what is spent on late event loops to the service, and on other instances' turns to what these consist of."""
    late_redis = redis * min(_MOST_LATE, ratio(spent.lag_seconds, spent.call_seconds))
    transaction_seconds = ratio(spent.postgresql, spent.transactions)
    late_postgresql = postgresql * min(_MOST_LATE, ratio(spent.lag_seconds, transaction_seconds))
    shares = {
        LOCK: 0.0,
        REDIS: redis - late_redis,
        POSTGRESQL: postgresql - late_postgresql,
        SERVICE: late_redis + late_postgresql,
    }
    for name, share in _parts_of_turn(spent).items():
        shares[name] += lock * share
    return shares


def _parts_of_turn(spent: Spent) -> dict[str, float]:
    """Return what the turns consist of that others wait for, as shares; short ones are the lock's."""
    redis = _CALLS_OF_A_TURN * spent.holds * spent.call_seconds
    transactions = min(spent.transaction_seconds, spent.hold_seconds)
    total = redis + spent.hold_seconds
    if not spent.holds or 1000 * total / spent.holds < LONG_TURN_MS:
        return {LOCK: 1.0}
    late_redis = min(_MOST_LATE * redis, _CALLS_OF_A_TURN * spent.holds * spent.lag_seconds)
    late_transactions = min(_MOST_LATE * transactions, spent.transactions * spent.lag_seconds)
    return {
        REDIS: (redis - late_redis) / total,
        POSTGRESQL: (transactions - late_transactions) / total,
        SERVICE: (spent.hold_seconds - transactions + late_redis + late_transactions) / total,
    }


def _call_seconds(spans: Sequence[Recent]) -> float:
    """Return the mean duration of a call of the masters that are up. Those that are down get only probes."""
    calls = [(calls, seconds) for each in spans for is_up, calls, seconds in each.masters.values() if is_up]
    return ratio(sum(seconds for _, seconds in calls), sum(number for number, _ in calls))
