"""The summary that an instance publishes: its figures of about the last second, and of the last ten."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import sub
from types import MappingProxyType

import orjson
from pydantic import TypeAdapter, ValidationError

from claimsvc.observability.console.events import Event
from claimsvc.observability.console.health import DependencyState
from claimsvc.observability.console.objectives import ObjectiveFigures, ObjectiveHistory
from claimsvc.observability.metrics import LATENCY_BOUNDS, Numbers, Totals

# Version of the layout below. Summaries of other versions, as during an update, are ignored.
_VERSION = 2
WINDOW_SECONDS = 1.0
# Causes are judged by these seconds.
RECENT_SECONDS = 10.0
# Tolerance, so that a reading that is a few milliseconds too young still closes the window.
_SLACK_SECONDS = 0.05
_MOST_COUPONS = 20
# Several times the largest possible summary.
_MOST_BYTES = 256 * 1024
# Gauges: their current value is reported, not its growth.
_NOW = ("waiting", "lock_waiters", "pool_in_use", "pool_idle")
# A coupon is busy by its claims, of any outcome, and attempts to take its lock; these figures do not count.
_NOT_BUSY = {"wait_seconds", "hold_seconds", "waits", "holds"}


@dataclass(frozen=True, slots=True)
class Recent:
    """The growth of the same figures in the last ten seconds; see `Summary`."""

    seconds: float
    coupons: dict[str, Numbers]
    all_coupons: Numbers
    process: Numbers
    masters: dict[str, tuple[bool, int, float]]


@dataclass(frozen=True, slots=True)
class Summary:
    """One instance's figures.

    Args:
        id: unique name of the instance.
        name: its name for people.
        started_at, told_at: when the instance started, and when it made this summary, by its own clock (seconds since
            1970).
        seconds: length of the window.
        coupons: growth of the busiest coupons' figures; see `metrics.Totals`.
        all_coupons: growth of the figures of all coupons together.
        known: coupons that have figures of their own on this instance, the busiest first.
        held: coupons whose lock it holds, and for how long, at least (seconds).
        process, latency: see `metrics.Totals`; the growth of counters, and the value of gauges. Besides the growth of
            `in_use_seconds` and `lock_waiting_seconds`: connections in use and queues that wait for a lock, times
            seconds, those that have not ended included.
        masters: for each whether it is up, the number of calls, and the seconds spent in them.
        pool_size: most connections to PostgreSQL.
        events: recent events.
        is_leaving: whether this is the last summary, because the instance stops.
        version: of this layout.
        recent, objectives, health: None or empty from an instance of an earlier version.
    """

    id: str
    name: str
    started_at: float
    told_at: float
    seconds: float
    coupons: dict[str, Numbers]
    all_coupons: Numbers
    known: list[str]
    held: dict[str, float]
    process: Numbers
    latency: list[float]
    masters: dict[str, tuple[bool, int, float]]
    pool_size: int
    events: list[Event]
    is_leaving: bool = False
    version: int = _VERSION
    recent: Recent | None = None
    objectives: ObjectiveFigures = field(default_factory=ObjectiveFigures)
    health: dict[str, DependencyState] = field(default_factory=dict)

    def span(self, *, is_instant: bool) -> Recent:
        """Return the figures of the last ten seconds; of the last one if `is_instant`, or if there are no others."""
        if self.recent is not None and not is_instant:
            return self.recent
        return Recent(self.seconds, self.coupons, self.all_coupons, self.process, self.masters)

    def to_bytes(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, text: bytes) -> "Summary | None":
        """Parse a summary; None if it is invalid or of another version.

        Every field is validated, because an invalid one would break the picture of all viewers.
        """
        if len(text) > _MOST_BYTES:
            return None
        try:
            summary = _SUMMARY.validate_json(text)
        except ValidationError:
            return None
        return summary if summary.version == _VERSION and len(summary.latency) == len(LATENCY_BOUNDS) else None


_SUMMARY = TypeAdapter(Summary)


class Window:
    """The readings of about the last second, and their summary.

    Args:
        id, name, pool_size: see `Summary`.
    """

    def __init__(self, id: str, name: str, pool_size: int) -> None:  # noqa: A002 - it is the field's name
        self.id = id
        self.name = name
        self._started_at = time.time()
        self._pool_size = pool_size
        self._readings: deque[Totals] = deque()
        self._seconds: deque[Totals] = deque()  # the readings of the last ten seconds, one a second
        self._objectives = ObjectiveHistory()
        # For each held lock: since when it has been seen held, and the number of holds then. A new hold resets both.
        self._held: dict[str, tuple[float, float]] = {}

    def add(self, totals: Totals) -> Totals | None:
        """Add a reading, and return the one before it."""
        before = self._readings[-1] if self._readings else None
        _integrate(totals, before)
        self._objectives.add(totals)
        self._readings.append(totals)
        if not self._seconds or totals.at - self._seconds[-1].at >= WINDOW_SECONDS - _SLACK_SECONDS:
            self._seconds.append(totals)
        while len(self._seconds) > 2 and totals.at - self._seconds[1].at >= RECENT_SECONDS - _SLACK_SECONDS:
            self._seconds.popleft()
        while len(self._readings) > 2 and totals.at - self._readings[1].at >= WINDOW_SECONDS - _SLACK_SECONDS:
            self._readings.popleft()
        held: dict[str, tuple[float, float]] = {}
        for coupon in totals.held:
            holds = totals.coupons.get(coupon, {}).get("holds", 0.0)
            since, holds_then = self._held.get(coupon, (totals.at, holds))
            held[coupon] = (since if holds == holds_then else totals.at, holds)
        self._held = held
        return before

    def summary(
        self,
        events: Iterable[Event],
        *,
        health: Mapping[str, DependencyState] = MappingProxyType({}),
        is_leaving: bool = False,
    ) -> Summary:
        """Summarize the readings. At least one must have been added."""
        first, last = self._readings[0], self._readings[-1]
        growth = _growth(last, first)
        busiest = sorted(growth, key=lambda name: _busyness(growth[name]), reverse=True)[:_MOST_COUPONS]
        return Summary(
            id=self.id,
            name=self.name,
            started_at=self._started_at,
            told_at=time.time(),
            seconds=last.at - first.at,
            coupons={name: growth[name] for name in busiest},
            all_coupons=add_up(growth.values()),
            known=sorted(last.coupons, key=lambda name: _busyness(last.coupons[name]), reverse=True)[:_MOST_COUPONS],
            held=self._held_for(last.at),
            process={**_less(last.process, first.process), **{name: last.process[name] for name in _NOW}},
            latency=[max(0.0, grown) for grown in map(sub, last.latency, first.latency)],
            masters=_calls(last, first),
            pool_size=self._pool_size,
            events=list(events),
            is_leaving=is_leaving,
            recent=self._recent(last),
            objectives=self._objectives.figures(last.at),
            health=dict(health),
        )

    def _recent(self, last: Totals) -> Recent:
        first = self._seconds[0]
        growth = _growth(last, first)
        busiest = sorted(growth, key=lambda name: _busyness(growth[name]), reverse=True)[:_MOST_COUPONS]
        return Recent(
            seconds=last.at - first.at,
            coupons={name: growth[name] for name in busiest},
            all_coupons=add_up(growth.values()),
            process=_less(last.process, first.process),
            masters=_calls(last, first),
        )

    def _held_for(self, now: float) -> dict[str, float]:
        """Return the locks that have been held longest, and for how many seconds."""
        longest = sorted(self._held, key=lambda name: self._held[name])[:_MOST_COUPONS]
        return {name: round(now - self._held[name][0], 3) for name in longest}


def _integrate(totals: Totals, before: Totals | None) -> None:
    """Add how long connections have been in use and queues have waited: a transaction that hangs has no duration yet.

    Only what two readings in a row have seen counts, so that short uses do not count for the whole time in between.
    """
    for name, gauge in (("in_use_seconds", "pool_in_use"), ("lock_waiting_seconds", "lock_waiters")):
        grown = 0.0
        if before is not None:
            both = min(totals.process.get(gauge, 0.0), before.process.get(gauge, 0.0))
            grown = before.process.get(name, 0.0) + both * (totals.at - before.at)
        totals.process[name] = grown


def _growth(last: Totals, first: Totals) -> dict[str, Numbers]:
    return {name: grown for name, of in last.coupons.items() if (grown := _less(of, first.coupons.get(name, {})))}


def _calls(last: Totals, first: Totals) -> dict[str, tuple[bool, int, float]]:
    return {name: _called(now, first.masters.get(name)) for name, now in last.masters.items()}


def _called(now: tuple[bool, int, float], before: tuple[bool, int, float] | None) -> tuple[bool, int, float]:
    up, calls, seconds = now
    return (up, calls, seconds) if before is None else (up, calls - before[1], seconds - before[2])


def _less(now: Numbers, before: Numbers) -> Numbers:
    """Return the figures that have grown. A coupon that re-enters the busiest ones starts from 0, which is skipped."""
    return {name: grown for name, value in now.items() if (grown := value - before.get(name, 0.0)) > 0}


def add_up(each: Iterable[Numbers]) -> Numbers:
    """Add up figures by name."""
    total: Numbers = {}
    for numbers in each:
        for name, value in numbers.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _busyness(numbers: Numbers) -> float:
    return sum(value for name, value in numbers.items() if name not in _NOT_BUSY)
