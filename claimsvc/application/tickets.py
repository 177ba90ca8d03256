"""Tickets as their users see them: reading and following one, and leaving the queue."""

from claimsvc.domain import (
    ANYBODY,
    Caller,
    LeftQueue,
    NotYourClaim,
    Scope,
    Ticket,
    TicketStarted,
    TicketState,
    UnknownTicket,
)
from claimsvc.ports import Progress, TicketObserver, Tickets


async def get(tickets: Tickets, caller: Caller, ticket_id: str) -> Ticket | UnknownTicket | NotYourClaim:
    """Read a ticket. Whether codes may be shown says `shows_code`.

    Args:
        tickets: reads tickets.
        caller: the ticket's user, or a caller with the scope `tickets:read`; anybody, where no tokens are configured.
        ticket_id: the ticket.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    ticket = await tickets.ticket(ticket_id.lower())
    if ticket is None:
        return UnknownTicket()
    return ticket if _is_of(caller, ticket, Scope.TICKETS_READ) else NotYourClaim()


def shows_code(caller: Caller, ticket: Ticket) -> bool:
    """Whether the caller may see the code of a ticket's claim; see `claims.shows_code`."""
    return caller is ANYBODY or caller.sees_codes_of(ticket.user_id)


async def get_by_id_alone(tickets: Tickets, ticket_id: str) -> Ticket | UnknownTicket:
    """Read a ticket for whoever has its id. Show neither its user nor its claim. Raises as `get`."""
    return await tickets.ticket(ticket_id.lower()) or UnknownTicket()


async def changed(progress: Progress, ticket: Ticket, *, within_seconds: float) -> Ticket | UnknownTicket:
    """Wait until a ticket that the caller may read has another state or position, at most for so long.

    Args:
        progress: tells what becomes of tickets.
        ticket: as it was read last.
        within_seconds: how long to wait at most.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    if ticket.state.is_end:
        return ticket
    return await progress.changed(ticket, within_seconds=within_seconds) or UnknownTicket()


async def leave(
    tickets: Tickets, caller: Caller, ticket_id: str, observer: TicketObserver | None = None
) -> LeftQueue | TicketStarted | UnknownTicket | NotYourClaim:
    """Take a waiting ticket out of its queue. Safe to repeat.

    Args:
        tickets: reads and changes tickets.
        caller: the ticket's user, or a caller with the scope `tickets:write`; anybody, where no tokens are configured.
        ticket_id: the ticket.
        observer: receives the ticket's end, unless it had ended before.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    if caller is not ANYBODY and Scope.TICKETS_WRITE not in caller.scopes:
        # The user of a ticket never changes, so this is still true when it leaves.
        ticket = await tickets.ticket(ticket_id.lower())
        if ticket is None:
            return UnknownTicket()
        if not _is_of(caller, ticket, Scope.TICKETS_WRITE):
            return NotYourClaim()
    left = await tickets.leave(ticket_id.lower())
    if isinstance(left, LeftQueue) and left.is_new and observer is not None:
        observer.ticket_ended(left.ticket.coupon_name, TicketState.LEFT)
    return left


def _is_of(caller: Caller, ticket: Ticket, scope: Scope) -> bool:
    # Where no tokens are configured, users are not known: whoever has a ticket's id is taken for its user.
    return caller is ANYBODY or caller.user_id == ticket.user_id or scope in caller.scopes
