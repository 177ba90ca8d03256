"""The other instances: their last summaries, the offsets of their clocks, and their restarts."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from claimsvc.observability.console.events import Events
from claimsvc.observability.console.summary import Summary

# Without a summary for this long, an instance is silent, and later forgotten.
SILENT_SECONDS = 2.5
_FORGOTTEN_SECONDS = 60.0
_MOST_INSTANCES = 200
# An instance that is first heard this soon after listening started is not new.
_WARM_UP_SECONDS = 2.0
# Smaller differences are transmission time, not an offset of the clock.
_SAME_CLOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Heard:
    """An instance's last summary.

    Args:
        summary: the summary.
        age_seconds: how old it is.
        is_here: whether it is this instance.
        is_silent: whether no summary has arrived for `SILENT_SECONDS`.
        clock_offset_seconds: add it to the summary's times to get times of this instance's clock.
        restarts: number of processes of its host that were replaced while this instance listened.
    """

    summary: Summary
    age_seconds: float
    is_here: bool = False
    is_silent: bool = False
    clock_offset_seconds: float = 0.0
    restarts: int = 0


@dataclass(slots=True)
class _Other:
    summary: Summary
    heard_at: float
    clock_offset_seconds: float
    is_new: bool
    is_silent: bool = False


class Membership:
    """The other instances, at most `_MOST_INSTANCES`.

    Args:
        events: records new, silent and leaving instances.
        clock: monotonic seconds.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._events = events
        self._clock = clock
        self._wall_clock = wall_clock
        self.begin()

    def begin(self) -> None:
        """Forget all instances. Call it when listening starts."""
        self._since = self._clock()
        self._others: dict[str, _Other] = {}
        self._gone: Counter[str] = Counter()
        self._come: Counter[str] = Counter()

    def hear(self, summary: Summary) -> None:
        """Record a summary of another instance."""
        known = self._others.get(summary.id)
        if summary.is_leaving:
            if known is not None:
                self._leave(known)
                self._events.add("instance-left", summary.name)
            return
        now = self._clock()
        if known is None:
            if len(self._others) < _MOST_INSTANCES:
                is_new = now - self._since > _WARM_UP_SECONDS
                self._others[summary.id] = _Other(summary, now, self._offset(summary, 0.0), is_new)
                if is_new:
                    self._come[_host(summary)] += 1
                    self._events.add("instance-new", summary.name)
            return
        if known.is_silent:
            known.is_silent = False
            self._gone[_host(summary)] -= 1
            self._events.add("instance-back", summary.name)
        known.summary, known.heard_at = summary, now
        known.clock_offset_seconds = self._offset(summary, known.clock_offset_seconds)

    def heard(self) -> list[Heard]:
        """Return the other instances, sorted by name."""
        now = self._clock()
        for other in tuple(self._others.values()):
            age = now - other.heard_at
            if age > SILENT_SECONDS and not other.is_silent:
                other.is_silent = True
                self._gone[_host(other.summary)] += 1
                self._events.add("instance-silent", other.summary.name)
            if age > _FORGOTTEN_SECONDS:
                self._leave(other)
        return sorted(
            (
                Heard(
                    other.summary,
                    now - other.heard_at,
                    is_silent=other.is_silent,
                    clock_offset_seconds=other.clock_offset_seconds,
                    restarts=self._restarts(other),
                )
                for other in self._others.values()
            ),
            key=lambda each: (each.summary.name, each.summary.id),
        )

    def _leave(self, other: _Other) -> None:
        del self._others[other.summary.id]
        if not other.is_silent:
            self._gone[_host(other.summary)] += 1
        if len(self._gone) > _MOST_INSTANCES:  # bounds the memory when host names keep changing
            self._gone.clear()
            self._come.clear()

    def _restarts(self, other: _Other) -> int:
        host = _host(other.summary)
        return max(0, min(self._come[host], self._gone[host])) if other.is_new else 0

    def _offset(self, summary: Summary, known: float) -> float:
        """Return the clock offset. It changes only by larger steps, so that times do not jitter with the network."""
        offset = self._wall_clock() - summary.told_at
        return known if abs(offset - known) < _SAME_CLOCK_SECONDS else offset


def _host(summary: Summary) -> str:
    return summary.name.rpartition(":")[0]
