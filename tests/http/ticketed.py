"""Tickets and their progress in memory, as their users see them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from claimsvc.domain import (
    LeftQueue,
    Ticket,
    TicketStarted,
    TicketState,
    UnknownTicket,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ticket_id(number: int = 1) -> str:
    """The id of a ticket that a test makes."""
    return f"019b2c5e-7a31-7c42-9f0e-{number:012x}"


def waiting(ahead: int | None = 0, user_id: str = "ann", **changes: Any) -> Ticket:
    """A ticket of the coupon `mega` that waits, unless it is changed."""
    eta = None if ahead is None else 0.25 * (ahead + 1)
    found = Ticket(ticket_id(), "mega", user_id, TicketState.WAITING, AT, ahead=ahead, eta_seconds=eta)
    return replace(found, **changes)


def started() -> Ticket:
    """The same, once its claim has begun."""
    return replace(waiting(), state=TicketState.STARTED, ahead=None, eta_seconds=None, started_at=AT)


def ended(state: TicketState, **changes: Any) -> Ticket:
    """The same, once it has ended."""
    return replace(waiting(), state=state, ahead=None, eta_seconds=None, ended_at=AT, **changes)


class HeldTickets:
    """`ports.Tickets` as far as users see it, and `ports.Progress`: a test says what becomes of each ticket."""

    def __init__(self, *found: Ticket) -> None:
        self.found = {ticket.id: ticket for ticket in found}
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
            ticket = await self.put(ended(TicketState.LEFT, id=ticket_id))
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
