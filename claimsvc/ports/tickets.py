"""Queues of coupons, and the tickets that wait in them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from claimsvc.domain import (
    AuditEntry,
    ClaimOptions,
    Draw,
    IdempotencyKey,
    JoinRequest,
    KeyReused,
    LeftQueue,
    NoDraw,
    QueueChanged,
    Queued,
    QueueFull,
    QueueProgress,
    QueueStatus,
    Replayed,
    SoldOut,
    StartedTicket,
    Ticket,
    TicketDiscarded,
    TicketNotDead,
    TicketReplaced,
    TicketRequeued,
    TicketStarted,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.ports.claims import PendingOutcome

Joined = Queued | QueueFull | SoldOut | UnknownCoupon | Replayed | KeyReused
"""What joining a queue may result in; None where a claim would be refused at once, so that nobody waits for that."""


class Joins(Protocol):
    """Lets claims wait in queues."""

    def join(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """Let a claim wait in the coupon's queue; a user who waits already keeps the place.

        Returns:
            A future of `Queued`, `QueueFull`, or the refusal that a claim would get now. It fails as that of a claim
            does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What one pass over the queues has started.

    Args:
        started: the tickets whose claims are to be made now.
        due_seconds: in how many seconds the next ticket of each of these queues may be started. Left out: those in
            which something must happen first, such as the end of a claim that is under way.
        expired: how many tickets have waited too long, by coupon.
        lag_seconds: by how much the latest of these starts was later than the pace allowed.
        dead: how many tickets have become dead letters, because whoever made their claims stopped too often, by coupon.
        looked_at: how many queues.
        skipped: those of `freed` that another instance uses just now: they are to be looked at again soon.
    """

    started: Sequence[StartedTicket]
    due_seconds: Mapping[str, float]
    expired: Mapping[str, int]
    lag_seconds: float = 0.0
    dead: Mapping[str, int] = field(default_factory=dict)
    looked_at: int = 0
    skipped: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A claim of a ticket that failed because of the service.

    Args:
        ticket: the ticket.
        retry_seconds: when the claim is tried again; None if it has failed too often, which makes it a dead letter.
        stop_seconds: for how long no further ticket of the queue is started.
        counts: whether this was a try; false if the claim could not be decided yet.
    """

    ticket: StartedTicket
    retry_seconds: float | None
    stop_seconds: float = 0.0
    counts: bool = True


class Tickets(Protocol):
    """Stores queues and tickets. All methods raise `UnavailableError` when the database does not answer in time."""

    async def join(self, coupon_name: str, requests: Sequence[JoinRequest]) -> list[Joined | None]:
        """Let users join the queue of a coupon, in this order.

        Safe to repeat: a user who waits already, or whose claim is under way, gets the same ticket.

        Returns:
            What each request results in. `SoldOut` means that it may wait for units that come back, if a claim would be
            refused for no other reason.
        """
        ...

    async def ticket(self, ticket_id: str) -> Ticket | None:
        """Read a ticket. The cost does not depend on how many wait."""
        ...

    async def tickets(
        self, coupon_name: str, *, states: Collection[TicketState], after: str | None, limit: int
    ) -> list[Ticket]:
        """List the tickets of a coupon in the order in which they joined, without their places in the queue.

        Args:
            coupon_name: the coupon.
            states: only tickets in one of these states.
            after: the id of the last ticket of the previous page; None for the first page.
            limit: how many are returned at most.
        """
        ...

    async def leave(self, ticket_id: str) -> LeftQueue | TicketStarted | UnknownTicket:
        """Take a waiting ticket out of its queue. Safe to repeat."""
        ...

    async def dispatch(self, instance: str, *, lease_seconds: float, freed: Collection[str] = ()) -> Dispatched:
        """Start as many tickets of the queues that are due as their pace allows, and lease them to this instance.

        Tickets whose leases have ended, and those that are to be tried again now, come first.

        Args:
            instance: the name of this instance, for operators.
            lease_seconds: how long a lease is valid.
            freed: coupons of which claims of tickets have ended, or that are due by another clock: they are due, too.
        """
        ...

    async def due_in(self) -> float | None:
        """Return in how many seconds a queue is due; None if none is."""
        ...

    async def renew(self, tickets: Sequence[StartedTicket], *, lease_seconds: float) -> None:
        """Prolong the leases of tickets, as far as they are still held."""
        ...

    async def put_back(self, failed: Sequence[FailedTry]) -> None:
        """Give up leases after failures of the service, as far as they are still held."""
        ...

    async def read(self, ticket_ids: Sequence[str]) -> list[Ticket]:
        """Read several tickets; see `ticket`."""
        ...

    async def progress(self, coupon_names: Collection[str]) -> Mapping[str, QueueProgress]:
        """Return how far queues are, by coupon. The cost does not depend on how many are watched."""
        ...

    async def places(self, blocks: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], Sequence[int]]:
        """Return the places in which tickets wait, in order, of blocks given by coupon and number."""
        ...

    async def statuses(self, coupon_names: Collection[str] | None = None) -> list[QueueStatus]:
        """Return the state of these queues, or of all in which tickets wait, are started or are dead letters."""
        ...

    async def draw(self, coupon_name: str, *, after: int, limit: int) -> Draw | NoDraw:
        """Return how the order of a queue was drawn, or what is published before that.

        Args:
            coupon_name: the coupon.
            after: how many of the drawn entries are left out, because an earlier page had them.
            limit: how many are returned at most.
        """
        ...

    async def pause(
        self, coupon_name: str, entry: AuditEntry, *, paused: bool, idempotency_key: IdempotencyKey | None = None
    ) -> QueueChanged | UnknownCoupon | Replayed | KeyReused:
        """Stop starting tickets of a coupon, or go on. `entry` is written if that changes anything."""
        ...

    async def dead_letters(self, *, after: str | None, limit: int) -> list[Ticket]:
        """List the dead tickets of all coupons, oldest first; see `tickets`."""
        ...

    async def requeue(
        self, ticket_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> TicketRequeued | TicketNotDead | TicketReplaced | UnknownTicket | Replayed | KeyReused:
        """Try the claim of a dead ticket again at once."""
        ...

    async def discard(self, ticket_id: str, entry: AuditEntry) -> TicketDiscarded | TicketNotDead | UnknownTicket:
        """Remove a dead ticket from the dead letters for good: it has left."""
        ...


class Progress(Protocol):
    """Tells those who watch tickets what becomes of them."""

    async def changed(self, ticket: Ticket, *, within_seconds: float) -> Ticket | None:
        """Wait until a ticket has another state or position than this, at most for so long.

        Returns:
            The ticket as it is then, changed or not; None if it is no longer known.
        """
        ...
