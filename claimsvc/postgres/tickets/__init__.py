"""Queues and tickets in PostgreSQL.

Whoever joins, leaves or starts tickets of a coupon locks the row of its queue first. A claim does not: its transaction
locks the row of its own ticket, and writes its end. So the order of locks is queue, then tickets; or coupon, then
tickets.
"""

from collections.abc import Collection, Sequence
from functools import partial

from claimsvc.domain import (
    AuditEntry,
    Draw,
    IdempotencyKey,
    JoinRequest,
    KeyReused,
    LeftQueue,
    NoDraw,
    QueueChanged,
    QueueProgress,
    QueueStatus,
    Replayed,
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
from claimsvc.ports import Joined
from claimsvc.postgres.database import Database
from claimsvc.postgres.tickets import drawing, joining, operating, reading
from claimsvc.postgres.tickets.dispatching import TicketDispatching

# Each takes some 0.1 ms, and one query is not to take long.
_READ_AT_ONCE = 200


class PostgresTickets(TicketDispatching):
    """`ports.Tickets` on PostgreSQL.

    Args:
        database: where statements run.
        reads: where lists are read; `database` if None.
    """

    def __init__(self, database: Database, *, reads: Database | None = None) -> None:
        super().__init__(database)
        self._reads = reads or database
        self._joining = joining.Joining(database)

    async def join(self, coupon_name: str, requests: Sequence[JoinRequest]) -> list[Joined | None]:
        """See `ports.Tickets`."""
        return await self._joining.join(coupon_name, requests)

    async def leave(self, ticket_id: str) -> LeftQueue | TicketStarted | UnknownTicket:
        """See `ports.Tickets`."""
        return await joining.leave(self._database, ticket_id)

    async def ticket(self, ticket_id: str) -> Ticket | None:
        """See `ports.Tickets`."""
        return next(iter(await self.read([ticket_id])), None)

    async def read(self, ticket_ids: Sequence[str]) -> list[Ticket]:
        """See `ports.Tickets`."""

        found: list[Ticket] = []
        for first in range(0, len(ticket_ids), _READ_AT_ONCE):
            read = partial(reading.read_tickets, ticket_ids=ticket_ids[first : first + _READ_AT_ONCE])
            found += await self._database.read(read)
        return found

    async def progress(self, coupon_names: Collection[str]) -> dict[str, QueueProgress]:
        """See `ports.Tickets`."""
        return await reading.progress(self._database, coupon_names)

    async def places(self, blocks: Collection[tuple[str, int]]) -> dict[tuple[str, int], list[int]]:
        """See `ports.Tickets`."""
        return await reading.places(self._database, blocks)

    async def tickets(
        self, coupon_name: str, *, states: Collection[TicketState], after: str | None, limit: int
    ) -> list[Ticket]:
        """See `ports.Tickets`."""
        return await reading.tickets_of(self._reads, coupon_name, states=states, after=after, limit=limit)

    async def dead_letters(self, *, after: str | None, limit: int) -> list[Ticket]:
        """See `ports.Tickets`."""
        return await reading.dead_letters(self._reads, after=after, limit=limit)

    async def statuses(self, coupon_names: Collection[str] | None = None) -> list[QueueStatus]:
        """See `ports.Tickets`."""
        return await reading.statuses(self._reads, coupon_names)

    async def draw(self, coupon_name: str, *, after: int, limit: int) -> Draw | NoDraw:
        """See `ports.Tickets`."""
        return await drawing.read_draw(self._reads, coupon_name, after=after, limit=limit)

    async def pause(
        self, coupon_name: str, entry: AuditEntry, *, paused: bool, idempotency_key: IdempotencyKey | None = None
    ) -> QueueChanged | UnknownCoupon | Replayed | KeyReused:
        """See `ports.Tickets`."""
        return await operating.pause(self._database, coupon_name, entry, paused=paused, idempotency_key=idempotency_key)

    async def requeue(
        self, ticket_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> TicketRequeued | TicketNotDead | TicketReplaced | UnknownTicket | Replayed | KeyReused:
        """See `ports.Tickets`."""
        return await operating.requeue(self._database, ticket_id, entry, idempotency_key)

    async def discard(self, ticket_id: str, entry: AuditEntry) -> TicketDiscarded | TicketNotDead | UnknownTicket:
        """See `ports.Tickets`."""
        return await operating.discard(self._database, ticket_id, entry)
