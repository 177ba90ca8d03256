"""The queues of coupons as the console shows them: read once a second, and only while somebody looks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from claimsvc.domain import STALLED_SECONDS, QueueStatus
from claimsvc.errors import TransientError

ReadQueues = Callable[[], Awaitable[Sequence[QueueStatus]]]

MOST_QUEUES = 12
_LOOK_SECONDS = 1.0
# What was read longer ago than this is shown as outdated.
_OLD_SECONDS = 3.0

STALLED, WAITING, EMPTY = "stalled", "waiting", "empty"
"""States of a queue, besides those of `QueueStop`."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue. Times are seconds since 1970; None if there is none.

    Args:
        name: of its coupon.
        waiting, started, dead: see `QueueStatus`; so are `pace` and `dispatcher`.
        rate_per_second, concurrency, max_wait_seconds: of its settings.
        oldest_joined_at: when the first that waits has joined.
        state: why no ticket is started now, by `QueueStop`; `STALLED` if nobody knows; else `WAITING` or `EMPTY`.
        dispatcher: the unique name of the instance that started the last tickets.
        dispatcher_name: its name for people.
        dispatched_at: when that was.
    """

    name: str
    waiting: int
    started: int
    dead: int
    pace: float
    rate_per_second: int
    concurrency: int
    max_wait_seconds: int
    oldest_joined_at: float | None
    state: str
    dispatcher: str
    dispatcher_name: str
    dispatched_at: float | None


@dataclass(frozen=True, slots=True)
class QueuesShown:
    """The queues that are shown.

    Args:
        rows: the longest first.
        more: how many others there are.
        age_seconds: for how long they could not be read, if they are outdated; else 0.
    """

    rows: Sequence[QueueRow] = ()
    more: int = 0
    age_seconds: int = 0


class QueueWatch:
    """Reads the queues.

    Args:
        read: reads all of them.
        shown_name: the name for people of an instance, by its unique one.
    """

    def __init__(self, read: ReadQueues, shown_name: Callable[[str], str]) -> None:
        self._read = read
        self._shown_name = shown_name
        self.forget()

    def forget(self) -> None:
        """Forget what was read, because nobody looks any more."""
        self._rows: Sequence[QueueRow] = ()
        self._more = 0
        self._read_at: float | None = None

    async def look(self) -> None:
        """Read the queues once."""
        if self._read_at is None:
            self._read_at = time.monotonic()
        try:
            statuses = await self._read()
        except TransientError:
            pass  # the age tells
        else:
            busiest = sorted(statuses, key=lambda each: (-each.waiting, -each.started, each.coupon_name))
            now = datetime.now(UTC)
            self._rows = [_row(status, now, self._shown_name) for status in busiest[:MOST_QUEUES]]
            self._more = max(0, len(statuses) - MOST_QUEUES)
            self._read_at = time.monotonic()
        await asyncio.sleep(_LOOK_SECONDS)

    @property
    def shown(self) -> QueuesShown:
        """What is shown now."""
        age = 0.0 if self._read_at is None else time.monotonic() - self._read_at
        return QueuesShown(self._rows, self._more, int(age) if age > _OLD_SECONDS else 0)


def _row(status: QueueStatus, now: datetime, shown_name: Callable[[str], str]) -> QueueRow:
    return QueueRow(
        name=status.coupon_name,
        waiting=status.waiting,
        started=status.started,
        dead=status.dead,
        pace=round(status.pace, 1),
        rate_per_second=status.queue.rate_per_second,
        concurrency=status.queue.concurrency,
        max_wait_seconds=status.queue.max_wait_seconds,
        oldest_joined_at=_unix(status.oldest_joined_at) if status.waiting else None,
        state=_state(status, now),
        dispatcher=status.dispatcher or "",
        dispatcher_name=shown_name(status.dispatcher) if status.dispatcher else "",
        dispatched_at=_unix(status.dispatched_at),
    )


def _state(status: QueueStatus, now: datetime) -> str:
    if status.stalled_seconds(now) > STALLED_SECONDS:
        return STALLED
    if status.stopped is not None:
        return str(status.stopped)
    return WAITING if status.waiting or status.started else EMPTY


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else round(moment.timestamp(), 1)
