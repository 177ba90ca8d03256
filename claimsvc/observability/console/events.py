"""Recent events: few, remembered whether somebody watches or not, because what one comes to look at has just happened.

Nothing here is told by the code that claims: events are what two readings of its figures differ in.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claimsvc.observability.metrics import Totals

KEPT = 30
# The same again within this time is one event that has grown, not two.
_SAME_SECONDS = 1.0

# What a coupon's figures tell when they grow: the kind of event.
_OF_COUPONS = {
    "lock-busy": "gave-up",
    "unavailable": "failed",
    "internal-error": "broken",
    "lost": "lock-lost",
}


@dataclass(slots=True)
class Event:
    """Something that happened.

    Args:
        number: of this instance's events, from 1.
        at: when it last happened (seconds since 1970).
        kind: see `picture._TEXTS`.
        subject: the coupon, master or instance that it is about.
        count: how often, or how much.
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
        """Remember it; what happens again and again is one event that grows."""
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
        """Remember what has happened between two readings."""
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
