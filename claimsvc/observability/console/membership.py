"""Who else is here: the last summary of each instance, how its clock differs from ours, and which have begun anew."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from claimsvc.observability.console.events import Events
from claimsvc.observability.console.summary import Summary

# An instance that says nothing for so long is called silent; one that is silent for so long is forgotten.
SILENT_SECONDS = 2.5
_FORGOTTEN_SECONDS = 60.0
_MOST_INSTANCES = 200
# Who is heard this soon after one began to listen was here before.
_WARM_UP_SECONDS = 2.0
# What a summary's way here takes is no difference of clocks, and neither is what that varies by.
_SAME_CLOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Heard:
    """An instance's last summary.

    Args:
        age_seconds: how old it is.
        clock_offset_seconds: to be added to its times, to have them by our clock.
        restarts: how many processes of its host have ended, and were followed by others, while we listened.
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


class Attendance:
    """The other instances, as far as they are heard; of `_MOST_INSTANCES` at most.

    Args:
        events: is told who comes, falls silent, and goes.
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
        """Forget everything: we begin to listen now."""
        self._since = self._clock()
        self._others: dict[str, _Other] = {}
        self._gone: Counter[str] = Counter()
        self._come: Counter[str] = Counter()

    def hear(self, summary: Summary) -> None:
        """Remember what an instance says of itself."""
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
        """The others, by name."""
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
        if len(self._gone) > _MOST_INSTANCES:  # hosts that come and go for ever
            self._gone.clear()
            self._come.clear()

    def _restarts(self, other: _Other) -> int:
        host = _host(other.summary)
        return max(0, min(self._come[host], self._gone[host])) if other.is_new else 0

    def _offset(self, summary: Summary, known: float) -> float:
        """Kept for as long as it is about right, so that times do not tremble with the network."""
        offset = self._wall_clock() - summary.told_at
        return known if abs(offset - known) < _SAME_CLOCK_SECONDS else offset


def _host(summary: Summary) -> str:
    return summary.name.rpartition(":")[0]
