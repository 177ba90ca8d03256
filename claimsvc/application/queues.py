"""What operators do with the queues of coupons, and with tickets that are dead letters."""

from collections.abc import Collection

from claimsvc.application.scopes import require
from claimsvc.domain import (
    AuditEntry,
    Caller,
    IdempotencyKey,
    KeyReused,
    QueueChanged,
    QueueStatus,
    Replayed,
    Scope,
    Ticket,
    TicketDiscarded,
    TicketNotDead,
    TicketReplaced,
    TicketRequeued,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.ports import Coupons, Tickets


async def statuses(tickets: Tickets, caller: Caller) -> list[QueueStatus]:
    """Return the state of all queues in which tickets wait, are started or are dead letters, by coupon.

    Args:
        tickets: stores queues.
        caller: needs the scope `tickets:read`.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.TICKETS_READ)
    return sorted(await tickets.statuses(), key=lambda status: status.coupon_name)


async def ticket(tickets: Tickets, caller: Caller, ticket_id: str) -> Ticket | UnknownTicket:
    """Read any user's ticket.

    Args:
        tickets: stores tickets.
        caller: needs the scope `tickets:read`.
        ticket_id: the ticket.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.TICKETS_READ)
    return await tickets.ticket(ticket_id) or UnknownTicket()


async def of_coupon(
    tickets: Tickets,
    coupons: Coupons,
    caller: Caller,
    coupon_name: str,
    *,
    states: Collection[TicketState],
    after: str | None,
    limit: int,
) -> list[Ticket] | UnknownCoupon:
    """List the tickets of a coupon in the order in which they joined, without their places in the queue.

    Args:
        tickets: stores tickets.
        coupons: says whether there is a coupon that has no tickets.
        caller: needs the scope `tickets:read`.
        coupon_name: the coupon.
        states: only tickets in one of these states.
        after: the id of the last ticket of the previous page; None for the first page.
        limit: how many are returned at most.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.TICKETS_READ)
    found = await tickets.tickets(coupon_name, states=states, after=after, limit=limit)
    if not found and not await coupons.stock([coupon_name]):
        return UnknownCoupon()
    return found


async def pause(
    tickets: Tickets,
    caller: Caller,
    coupon_name: str,
    reason: str,
    *,
    paused: bool = True,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> QueueChanged | UnknownCoupon | Replayed | KeyReused:
    """Stop starting the tickets of a coupon, or go on. Users can still join its queue. Repeating it has no effect.

    Args:
        tickets: stores queues.
        caller: needs the scope `tickets:write`.
        coupon_name: the coupon.
        reason: why, for the audit.
        paused: False to go on.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.TICKETS_WRITE)
    action = "queue.pause" if paused else "queue.resume"
    entry = AuditEntry(caller.actor, action, "coupon", coupon_name, reason=reason, request_id=request_id)
    return await tickets.pause(coupon_name, entry, paused=paused, idempotency_key=key)


async def dead_letters(tickets: Tickets, caller: Caller, *, after: str | None, limit: int) -> list[Ticket]:
    """List the tickets of all coupons that the service failed too often to decide, oldest first.

    Args:
        tickets: stores tickets.
        caller: needs the scope `tickets:read`.
        after: the id of the last ticket of the previous page; None for the first page.
        limit: how many are returned at most.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.TICKETS_READ)
    return await tickets.dead_letters(after=after, limit=limit)


async def requeue(
    tickets: Tickets,
    caller: Caller,
    ticket_id: str,
    reason: str,
    *,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> TicketRequeued | TicketNotDead | TicketReplaced | UnknownTicket | Replayed | KeyReused:
    """Try the claim of a dead ticket again, as if it had not failed before.

    Args:
        tickets: stores tickets.
        caller: needs the scope `tickets:write`.
        ticket_id: the ticket.
        reason: why, for the audit.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.TICKETS_WRITE)
    return await tickets.requeue(ticket_id, _of_ticket(caller, "ticket.requeue", ticket_id, reason, request_id), key)


async def discard(
    tickets: Tickets, caller: Caller, ticket_id: str, reason: str, *, request_id: str | None = None
) -> TicketDiscarded | TicketNotDead | UnknownTicket:
    """Give a dead ticket up for good. Its user can claim again. The arguments and the errors are those of `requeue`."""
    require(caller, Scope.TICKETS_WRITE)
    return await tickets.discard(ticket_id, _of_ticket(caller, "ticket.discard", ticket_id, reason, request_id))


def _of_ticket(caller: Caller, action: str, ticket_id: str, reason: str, request_id: str | None) -> AuditEntry:
    return AuditEntry(caller.actor, action, "ticket", ticket_id.lower(), reason=reason, request_id=request_id)
