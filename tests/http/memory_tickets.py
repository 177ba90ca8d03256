"""Queues and tickets in memory, for the API alone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from claimsvc.domain import (
    USUAL_QUEUE,
    AuditEntry,
    Draw,
    IdempotencyKey,
    JoinRequest,
    KeyReused,
    LeftQueue,
    NoDraw,
    QueueChanged,
    QueueStatus,
    QueueStop,
    Replayed,
    Ticket,
    TicketDiscarded,
    TicketLease,
    TicketNotDead,
    TicketRequeued,
    TicketStarted,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.ports import Dispatched, Joined

AT = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryTickets:
    """`ports.Tickets` of what a test puts into it; nobody can join, and nothing is started."""

    def __init__(self, *found: Ticket) -> None:
        self.found = {ticket.id: ticket for ticket in found}
        self.paused: set[str] = set()
        self.entries: list[AuditEntry] = []
        self.kept: dict[tuple[str, str], tuple[IdempotencyKey, QueueChanged | TicketRequeued]] = {}

    async def join(self, coupon_name: str, requests: Sequence[JoinRequest]) -> list[Joined | None]:
        return [None for _ in requests]

    async def ticket(self, ticket_id: str) -> Ticket | None:
        return self.found.get(ticket_id)

    async def tickets(
        self, coupon_name: str, *, states: Collection[TicketState], after: str | None, limit: int
    ) -> list[Ticket]:
        found = [each for each in self.found.values() if each.coupon_name == coupon_name and each.state in states]
        return _after(found, after)[:limit]

    async def draw(self, coupon_name: str, *, after: int, limit: int) -> Draw | NoDraw:
        return NoDraw()

    async def leave(self, ticket_id: str) -> LeftQueue | TicketStarted | UnknownTicket:
        return UnknownTicket()

    async def dispatch(self, instance: str, *, lease_seconds: float) -> Dispatched:
        nothing: Mapping[str, float] = {}
        return Dispatched((), nothing, {})

    async def due_in(self) -> float | None:
        return None

    async def renew(self, leases: Sequence[tuple[str, TicketLease]], *, lease_seconds: float) -> None: ...

    async def put_back(
        self, coupon_name: str, lease: TicketLease, *, retry_seconds: float | None, stop_seconds: float
    ) -> None: ...

    async def statuses(self, coupon_names: Collection[str] | None = None) -> list[QueueStatus]:
        names = {ticket.coupon_name for ticket in self.found.values()} if coupon_names is None else coupon_names
        return [self._status(name) for name in names]

    def _status(self, name: str) -> QueueStatus:
        count = [ticket.state for ticket in self.found.values() if ticket.coupon_name == name].count
        is_paused = name in self.paused
        return QueueStatus(
            name,
            USUAL_QUEUE,
            count(TicketState.WAITING),
            count(TicketState.STARTED),
            count(TicketState.DEAD),
            2.5,
            QueueStop.PAUSED if is_paused else None,
            is_paused,
            AT,
            "web-1",
            AT + timedelta(seconds=1),
        )

    async def pause(
        self, coupon_name: str, entry: AuditEntry, *, paused: bool, idempotency_key: IdempotencyKey | None = None
    ) -> QueueChanged | UnknownCoupon | Replayed | KeyReused:
        told = self._told_again(idempotency_key)
        if told is not None:
            return told
        if coupon_name not in {ticket.coupon_name for ticket in self.found.values()}:
            return UnknownCoupon()
        if paused is not (coupon_name in self.paused):
            self.entries.append(entry)
        (self.paused.add if paused else self.paused.discard)(coupon_name)
        changed = QueueChanged(self._status(coupon_name))
        self._keep(idempotency_key, changed)
        return changed

    async def dead_letters(self, *, after: str | None, limit: int) -> list[Ticket]:
        return _after([each for each in self.found.values() if each.state is TicketState.DEAD], after)[:limit]

    async def requeue(
        self, ticket_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> TicketRequeued | TicketNotDead | UnknownTicket | Replayed | KeyReused:
        told = self._told_again(idempotency_key)
        if told is not None:
            return told
        changed = self._end(ticket_id, entry, TicketState.STARTED)
        if not isinstance(changed, Ticket):
            return changed
        requeued = TicketRequeued(changed)
        self._keep(idempotency_key, requeued)
        return requeued

    async def discard(self, ticket_id: str, entry: AuditEntry) -> TicketDiscarded | TicketNotDead | UnknownTicket:
        changed = self._end(ticket_id, entry, TicketState.LEFT)
        return TicketDiscarded(changed) if isinstance(changed, Ticket) else changed

    def _end(self, ticket_id: str, entry: AuditEntry, state: TicketState) -> Ticket | TicketNotDead | UnknownTicket:
        ticket = self.found.get(ticket_id)
        if ticket is None:
            return UnknownTicket()
        if ticket.state is not TicketState.DEAD:
            return TicketNotDead()
        self.entries.append(entry)
        self.found[ticket_id] = replace(ticket, state=state)
        return self.found[ticket_id]

    def _told_again(self, key: IdempotencyKey | None) -> Replayed | KeyReused | None:
        if key is None or (key.caller, key.key) not in self.kept:
            return None
        first, answer = self.kept[key.caller, key.key]
        return Replayed(answer, first.request_id) if first.fingerprint == key.fingerprint else KeyReused()

    def _keep(self, key: IdempotencyKey | None, answer: QueueChanged | TicketRequeued) -> None:
        if key is not None:
            self.kept[key.caller, key.key] = key, answer


def _after(tickets: list[Ticket], ticket_id: str | None) -> list[Ticket]:
    ids = [ticket.id for ticket in tickets]
    return tickets if ticket_id is None else tickets[ids.index(ticket_id) + 1 :]
