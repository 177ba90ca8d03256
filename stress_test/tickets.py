"""The data of a queue: its tickets as they were followed, listed and read again, and what is derived from them.

Times of tickets are the service's. Its clock is compared with this process's by the answers: a ticket has joined after
its request was sent, and before its answer was read.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from stress_test.history import QUEUED, CouponState, History, QueuePlan, TicketSeen

# Clocks of two machines go at slightly different speeds.
_CLOCK_TOLERANCE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class DrawSeen:
    """A draw as the service returned it, all pages."""

    seed_hash: str
    seed: str | None
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DrawHistory:
    """The draw of a queue.

    Args:
        before: read when the coupon had just been created.
        after: read when all tickets had ended.
        places: the tickets, read while the queue was paused after the draw.
    """

    before: DrawSeen
    after: DrawSeen
    places: tuple[TicketSeen, ...]


@dataclass(frozen=True, slots=True)
class TicketHistory:
    """What was seen of the tickets of one coupon.

    Args:
        readings: of each ticket that was told to a user, by its id: the answers, then readings until it had ended.
        again: the same tickets, read once more after all had ended; None for a 404.
        listed: all tickets of the coupon, as operators see them, after all had ended.
        tries: how often the claim of each was begun, by its id.
        starts_at: when the coupon could be claimed; None if at once.
        draw: of a queue with `order: draw`.
    """

    readings: Mapping[str, tuple[TicketSeen, ...]]
    again: Mapping[str, TicketSeen | None]
    listed: tuple[TicketSeen, ...]
    tries: Mapping[str, int]
    starts_at: datetime | None = None
    draw: DrawHistory | None = None


@dataclass(frozen=True)
class QueueCase:
    """All that is known about one coupon with a queue.

    Args:
        history: the requests and their answers.
        queue: of the coupon.
        tickets: what was seen of the tickets.
        state: the coupon and its claims, read back after all tickets had ended.
        grace_seconds: how long a claim may take, and by how much the service may be late.
    """

    history: History
    queue: QueuePlan
    tickets: TicketHistory
    state: CouponState
    grace_seconds: float

    @property
    def amount(self) -> int:
        """The units of the coupon."""
        return self.history.coupon.amount

    @cached_property
    def seen(self) -> list[TicketSeen]:
        """All tickets in the order in which they joined, as they were seen last; those of one moment by their place."""
        last = {id_: readings[-1] for id_, readings in self.tickets.readings.items()}
        found = [last.get(each.id, each) for each in self.tickets.listed]
        return sorted(found, key=lambda each: (each.joined_at, self.first_position(each.id) or 0))

    @cached_property
    def started(self) -> list[TicketSeen]:
        """Those that were started, in the order in which they joined."""
        return [each for each in self.seen if each.started_at is not None]

    def first_position(self, ticket_id: str) -> int | None:
        """The place that a ticket had when it joined, which is its largest; None if none was told."""
        told = [each.position for each in self.tickets.readings.get(ticket_id, ()) if each.position is not None]
        return max(told, default=None)

    def waits_from(self, ticket: TicketSeen) -> datetime:
        """From when on a ticket's wait counts."""
        return max(ticket.joined_at, self.tickets.starts_at or ticket.joined_at)

    def is_early(self, ticket: TicketSeen) -> bool:
        """Whether it joined before the coupon could be claimed."""
        return self.tickets.starts_at is not None and ticket.joined_at < self.tickets.starts_at

    @cached_property
    def clock(self) -> tuple[float, float] | None:
        """The least and the most seconds since 1970 of the service when this process's clock was 0."""
        least, most = float("-inf"), float("inf")
        sent: dict[str, float] = {}
        for attempt in self.history.attempts:
            sent[attempt.user_id] = min(attempt.started_seconds, sent.get(attempt.user_id, attempt.started_seconds))
        for attempt in self.history.with_outcome(QUEUED):
            if attempt.ticket is not None:
                joined = attempt.ticket.joined_at.timestamp()
                least = max(least, joined - attempt.finished_seconds)
                most = min(most, joined - sent[attempt.user_id])
        if least == float("-inf"):
            return None
        return least - _CLOCK_TOLERANCE_SECONDS, most + _CLOCK_TOLERANCE_SECONDS


class Steps:
    """A number that changes at moments: how many tickets wait, or have a unit to come.

    Args:
        changes: by how much it changes, and when. Of one moment, what lowers it comes first.
    """

    def __init__(self, changes: Iterable[tuple[datetime, int]]) -> None:
        self.times: list[datetime] = []
        self.values: list[int] = []
        self._lowest: list[int] = []
        value = 0
        for moment, change in sorted(changes):
            value += change
            if self.times and self.times[-1] == moment:
                self.values[-1] = value
                self._lowest[-1] = min(value, self._lowest[-1])
            else:
                self.times.append(moment)
                self._lowest.append(min(value, value - change))
                self.values.append(value)

    @property
    def most(self) -> int:
        """The largest value."""
        return max(self.values, default=0)

    def before(self, moment: datetime) -> int:
        """The value just before what raises it at this moment."""
        at = bisect_left(self.times, moment)
        if at < len(self.times) and self.times[at] == moment:
            return self._lowest[at]
        return self.values[at - 1] if at else 0

    def reached(self, level: int, since: float, until: float) -> bool:
        """Whether it was this large at some time between two moments (seconds since 1970)."""
        ends = [moment.timestamp() for moment in self.times[1:]] + [float("inf")]
        return any(
            value >= level and moment.timestamp() <= until and end >= since
            for moment, value, end in zip(self.times, self.values, ends, strict=True)
        )


def waiting(tickets: Sequence[TicketSeen]) -> Steps:
    """How many tickets waited."""
    stops = [(each.started_at or each.ended_at, -1) for each in tickets]
    return Steps([(each.joined_at, 1) for each in tickets] + [(at, by) for at, by in stops if at is not None])


def with_a_unit(tickets: Sequence[TicketSeen]) -> Steps:
    """How many tickets had a unit, or one to come: those that ended without one left theirs to others."""
    gone = [(each.ended_at, -1) for each in tickets if each.state != "claimed" and each.ended_at is not None]
    return Steps([(each.joined_at, 1) for each in tickets] + gone)


def under_way(tickets: Sequence[TicketSeen]) -> Steps:
    """How many claims were under way."""
    begun = [(each.started_at, 1) for each in tickets if each.started_at is not None]
    ended = [(each.ended_at, -1) for each in tickets if each.started_at is not None and each.ended_at is not None]
    return Steps(begun + ended)


def most_starts(tickets: Sequence[TicketSeen], within: timedelta) -> int:
    """The most starts within any span of this length."""
    starts = sorted(each.started_at for each in tickets if each.started_at is not None)
    return max((bisect_left(starts, start + within) - nth for nth, start in enumerate(starts)), default=0)
