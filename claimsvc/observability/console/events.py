"""Recent events of this instance. They are recorded without viewers too, so that a new viewer sees what has happened.

Most events are derived from the differences between two readings of the metrics; the claiming code does not emit them.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claimsvc.observability.metrics import Totals

KEPT = 30
# Equal events within this time are counted as one.
_SAME_SECONDS = 1.0

# The kind of event for each of a coupon's figures that has grown.
_OF_COUPONS = {
    "lock-busy": "gave-up",
    "unavailable": "failed",
    "internal-error": "broken",
    "lost": "lock-lost",
}


@dataclass(slots=True)
class Event:
    """One event, or several equal ones.

    Args:
        number: of this instance's events, from 1.
        at: when it last happened (seconds since 1970).
        kind: see `picture._TEXTS`.
        subject: the coupon, master or instance concerned.
        count: how often it happened, or an amount.
    """

    number: int
    at: float
    kind: str
    subject: str
    count: int = 1


class Events:
    """This instance's recent events, oldest first, at most `KEPT`.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._number = 0

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def add(self, kind: str, subject: str, count: int = 1) -> None:
        """Record an event. An equal event within a second increases the count of the earlier one."""
        now = self._clock()
        for event in reversed(self._events):
            if now - event.at > _SAME_SECONDS:
                break
            if (event.kind, event.subject) == (kind, subject) and kind not in {"master-up", "master-down"}:
                event.at, event.count = now, event.count + count
                return
        self._number += 1
        self._events.append(Event(self._number, now, kind, subject, count))

    def compare(self, before: Totals, now: Totals) -> None:
        """Record the events between two readings."""
        for coupon, numbers in now.coupons.items():
            old = before.coupons.get(coupon, {})
            for figure, kind in _OF_COUPONS.items():
                grown = numbers.get(figure, 0.0) - old.get(figure, 0.0)
                if grown > 0:
                    self.add(kind, coupon, int(grown))
            if numbers.get("sold-out") and not old.get("sold-out"):
                self.add("sold-out", coupon)
        for master, (is_up, *_) in now.masters.items():
            was_up = before.masters.get(master, (True,))[0]
            if is_up != was_up:
                self.add("master-up" if is_up else "master-down", master)
        if violations := now.process["violations"] - before.process["violations"]:
            self.add("invariant", "", int(violations))
