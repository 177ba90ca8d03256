"""The gauges of queues, from what every instance reads in the database.

All instances and workers sample the same queues, so these gauges must not be summed: of the workers the latest value
counts, and of the instances the greatest of those that have sampled lately.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from claimsvc.domain import TICKET_ENDS, QueueStatus, QueueStop
from claimsvc.observability.metrics.busiest import BusiestCoupons
from claimsvc.observability.metrics.families import Families

# Nobody expects that tickets are started then.
_MEANT = (QueueStop.PAUSED, QueueStop.NOT_STARTED)


class QueueGauges:
    """Shows the state of all queues.

    Args:
        families: where the gauges are.
        coupons: which coupons have a label.
    """

    def __init__(self, families: Families, coupons: BusiestCoupons) -> None:
        self._families = families
        self._coupons = coupons
        self._shown: set[str] = set()

    def forget(self, coupon_name: str) -> None:
        """Note that the coupon's series were removed."""
        self._shown.discard(coupon_name)

    def sampled(self, statuses: Sequence[QueueStatus]) -> None:
        """Show these queues, and no others."""
        families, now = self._families, datetime.now(UTC)
        # The longest first, as they compete for labels.
        for status in sorted(statuses, key=lambda each: each.waiting, reverse=True):
            self._coupons.count(status.coupon_name)
        by_label: dict[str, list[QueueStatus]] = {}
        for status in statuses:
            by_label.setdefault(self._coupons.label(status.coupon_name), []).append(status)
        # Those that were shown before are empty: with several workers, a series cannot be removed.
        for label in self._shown | by_label.keys():
            of = by_label.get(label, [])
            families.tickets_waiting.labels(label).set(sum(each.waiting for each in of))
            families.longest_wait.labels(label).set(max((waited_seconds(each, now) for each in of), default=0))
            families.longest_wait_share.labels(label).set(
                max((waited_seconds(each, now) / each.queue.max_wait_seconds for each in of), default=0)
            )
            families.stalled.labels(label).set(max((stalled_seconds(each, now) for each in of), default=0))
            for end in TICKET_ENDS:  # Prometheus misses the first event of a series that does not begin with 0
                families.tickets.labels(label, end)
        self._shown = set(by_label)
        for reason in QueueStop:
            stopped = sum(bool(each.waiting) and each.stopped is reason for each in statuses)
            families.queues_stopped.labels(reason).set(stopped)
        families.dead_letters.labels("ticket").set(sum(each.dead for each in statuses))
        families.queues_sampled.set(time.time())


def waited_seconds(status: QueueStatus, now: datetime) -> float:
    """Return how long the first ticket has waited; 0 if none waits."""
    if not status.waiting or status.oldest_joined_at is None:
        return 0.0
    return max(0.0, (now - status.oldest_joined_at).total_seconds())


def stalled_seconds(status: QueueStatus, now: datetime) -> float:
    """Return for how long tickets have waited and none was started, though nobody wanted that; 0 otherwise.

    A queue starts at least one ticket a second, and a claim ends within seconds. So a queue that has started none for
    longer is stalled, even while as many claims are under way as it allows.
    """
    if status.stopped in _MEANT or status.is_paused:
        return 0.0
    waited = waited_seconds(status, now)
    if status.dispatched_at is None:
        return waited
    return max(0.0, min(waited, (now - status.dispatched_at).total_seconds()))
