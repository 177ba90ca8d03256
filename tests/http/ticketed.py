"""Tickets and their progress in memory, and claims that wait in a queue of them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from claimsvc.domain import (
    ClaimOptions,
    LeftQueue,
    Queued,
    QueueFull,
    Ticket,
    TicketStarted,
    TicketState,
    UnknownTicket,
)
from claimsvc.ports import PendingOutcome
from tests.http.memory_services import MemoryStrategy
from tests.support.memory_store import MemoryStore

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ticket_id(number: int = 1) -> str:
    """The id of a ticket that a test makes."""
    return f"019b2c5e-7a31-7c42-9f0e-{number:012x}"


def waiting(ahead: int = 0, user_id: str = "ann", **changes: Any) -> Ticket:
    """A ticket of the coupon `mega` that waits."""
    found = Ticket(ticket_id(), "mega", user_id, TicketState.WAITING, AT, ahead=ahead, eta_seconds=0.25 * (ahead + 1))
    return replace(found, **changes)


class HeldTickets:
    """`ports.Tickets` as far as users see it, and `ports.Progress`: a test says what becomes of each ticket."""

    def __init__(self) -> None:
        self.found: dict[str, Ticket] = {}
        self.watching = 0
        self._changed = asyncio.Condition()

    async def put(self, ticket: Ticket) -> Ticket:
        """Add a ticket, or tell those who watch it what has become of it."""
        async with self._changed:
            self.found[ticket.id] = ticket
            self._changed.notify_all()
        return ticket

    async def ticket(self, ticket_id: str) -> Ticket | None:
        return self.found.get(ticket_id)

    async def leave(self, ticket_id: str) -> LeftQueue | TicketStarted | UnknownTicket:
        ticket = self.found.get(ticket_id)
        if ticket is None:
            return UnknownTicket()
        if ticket.state is TicketState.WAITING:
            ticket = await self.put(
                replace(ticket, state=TicketState.LEFT, ahead=None, eta_seconds=None, stopped=None, ended_at=AT)
            )
        return LeftQueue(ticket) if ticket.state is TicketState.LEFT else TicketStarted(ticket)

    async def changed(self, ticket: Ticket, *, within_seconds: float) -> Ticket | None:
        def is_other() -> bool:
            found = self.found.get(ticket.id)
            return found is None or (found.state, found.position) != (ticket.state, ticket.position)

        self.watching += 1
        try:
            async with asyncio.timeout(within_seconds), self._changed:
                await self._changed.wait_for(is_other)
        except TimeoutError:
            pass
        finally:
            self.watching -= 1
        return self.found.get(ticket.id)


class QueueingStrategy(MemoryStrategy):
    """Lets claims of `mega`, and those that prefer it, wait; `mega` has room for two."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.tickets = HeldTickets()

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        if coupon_name != "mega" and (options is None or not options.prefers_ticket):
            return super().claim(coupon_name, user_id, options)
        self._store.wants.append(options)
        found = self.tickets.found
        mine = next(
            (each for each in found.values() if (each.coupon_name, each.user_id) == (coupon_name, user_id)), None
        )
        answer = PendingOutcome()
        if mine is None and len(found) == 2:
            answer.set_result(QueueFull(7))
        else:
            number = len(found)
            mine = mine or waiting(number, user_id, id=ticket_id(number), coupon_name=coupon_name)
            found[mine.id] = mine
            answer.set_result(Queued(mine))
        return answer
