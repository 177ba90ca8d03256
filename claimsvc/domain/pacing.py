"""The pace of a queue: how many tickets may be started now, and when the next may be. Times are the database's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

_SECOND = timedelta(seconds=1)
# How much a second of starts counts in the pace of late.
_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a queue.

    Args:
        starts: when the tickets of the last second were started, in order.
        per_second: starts a second of late; None before the first second.
        since: when that was computed.
        counted: the starts since then.
        clock_advanced: by how much the clock was set forward within the last second. So much longer than a second
            starts count, because some were made before. One that was set back is noticed by starts in the future.
    """

    starts: Sequence[datetime] = ()
    per_second: float | None = None
    since: datetime | None = None
    counted: int = 0
    clock_advanced: timedelta = timedelta(0)

    def at(self, now: datetime, *, clock_advanced: timedelta = timedelta(0)) -> "Pace":
        """Return the pace at a moment, without the starts that are a second ago.

        Args:
            now: the database's time.
            clock_advanced: see `Pace`.
        """
        # Relative to each other they stay as they were. The last is taken as one of now, so none counts too short.
        ahead = max(max(self.starts, default=now) - now, timedelta(0))
        counts_since = now - _SECOND - clock_advanced
        starts = tuple(sorted(start - ahead for start in self.starts if start - ahead > counts_since))
        return replace(self, starts=starts, clock_advanced=clock_advanced)

    def allowed(self, rate: int, concurrency: int, under_way: int) -> int:
        """Return how many tickets may be started now.

        Args:
            rate: the most starts within any second.
            concurrency: the most claims that may be under way at once.
            under_way: claims that are.
        """
        return max(0, min(rate - len(self.starts), concurrency - under_way))

    def started(self, count: int, now: datetime) -> "Pace":
        """Return the pace after so many starts."""
        since = self.since or now
        counted = self.counted + count
        per_second = self.per_second
        seconds = (now - since).total_seconds()
        if seconds >= 1 or seconds < 0:
            of_late = counted / seconds if seconds > 0 else float(counted)
            per_second = of_late if per_second is None else per_second + _WEIGHT * (of_late - per_second)
            since, counted = now, 0
        starts = (*self.starts, *(now for _ in range(count)))
        return Pace(starts, per_second, since, counted, self.clock_advanced)

    def free_at(self, rate: int, now: datetime) -> datetime | None:
        """Return when the next ticket may be started, within a second; None if one may be at once."""
        if len(self.starts) < rate:
            return None
        free_at = self.starts[len(self.starts) - rate] + _SECOND
        # No start counts for more than a second after the clock was found to be set forward.
        return min(free_at + self.clock_advanced, now + _SECOND)


def eta_seconds(ahead: int, per_second: float | None, rate: int) -> float:
    """Return in how many seconds a ticket is started that has so many before it, at the pace of late.

    Args:
        ahead: how many wait before it.
        per_second: starts a second of late; None if that is not known yet.
        rate: the most starts a second.
    """
    return ahead / max(min(per_second if per_second is not None else rate, rate), 0.01)
