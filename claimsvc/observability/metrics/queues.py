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
            families.longest_wait.labels(label).set(max((each.waited_seconds(now) for each in of), default=0))
            families.longest_wait_share.labels(label).set(
                max((each.waited_seconds(now) / each.queue.max_wait_seconds for each in of), default=0)
            )
            families.stalled.labels(label).set(max((each.stalled_seconds(now) for each in of), default=0))
            for end in TICKET_ENDS:  # Prometheus misses the first event of a series that does not begin with 0
                families.tickets.labels(label, end)
        self._shown = set(by_label)
        for reason in QueueStop:
            stopped = sum(bool(each.waiting) and each.stopped is reason for each in statuses)
            families.queues_stopped.labels(reason).set(stopped)
        families.dead_letters.labels("ticket").set(sum(each.dead for each in statuses))
        families.queues_sampled.set(time.time())
