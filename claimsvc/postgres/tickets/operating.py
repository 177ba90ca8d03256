"""What operators do to queues and dead letters."""

from collections.abc import Callable
from typing import TypeVar

from claimsvc.domain import (
    AuditEntry,
    IdempotencyKey,
    KeyReused,
    QueueChanged,
    Replayed,
    Ticket,
    TicketDiscarded,
    TicketNotDead,
    TicketReplaced,
    TicketRequeued,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.postgres.audit import INSERT_ENTRY, parameters_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, look_up
from claimsvc.postgres.tickets.joining import LOCK_QUEUE, create_queue
from claimsvc.postgres.tickets.reading import read_statuses, read_tickets

_Changed = TypeVar("_Changed", TicketRequeued | TicketNotDead | TicketReplaced, TicketDiscarded | TicketNotDead)

_PAUSE = """
UPDATE queues SET paused = %(paused)s, due_at = CASE WHEN %(paused)s THEN due_at ELSE clock_timestamp() END
WHERE coupon_name = %(coupon_name)s AND paused <> %(paused)s
"""

# A user with another ticket meanwhile keeps that one.
_REQUEUE = """
UPDATE tickets SET state = 'started', ended_at = NULL, tries = 0, next_try_at = clock_timestamp()
WHERE id = %(id)s AND coupon_name = %(coupon_name)s AND state = 'dead'
    AND EXISTS (SELECT FROM queues WHERE queues.coupon_name = %(coupon_name)s)
    AND NOT EXISTS (
    SELECT FROM tickets AS other
    WHERE other.coupon_name = tickets.coupon_name AND other.user_id = tickets.user_id
        AND other.state IN ('waiting', 'started')
)
"""
_DISCARD = """
UPDATE tickets SET state = 'left', ended_at = clock_timestamp()
WHERE id = %(id)s AND coupon_name = %(coupon_name)s AND state = 'dead'
"""
_WAKE = "UPDATE queues SET due_at = clock_timestamp() WHERE coupon_name = %(coupon_name)s"
_COUPON = "SELECT coupon_name FROM tickets WHERE id = %(id)s"


async def pause(
    database: Database,
    coupon_name: str,
    entry: AuditEntry,
    *,
    paused: bool,
    idempotency_key: IdempotencyKey | None = None,
) -> QueueChanged | UnknownCoupon | Replayed | KeyReused:
    """See `ports.Tickets.pause`."""
    if not await create_queue(database, coupon_name):
        return UnknownCoupon()
    which = {"coupon_name": coupon_name, "paused": paused}

    async def work(driver: Driver, in_doubt: bool) -> QueueChanged | UnknownCoupon | Replayed | KeyReused:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_QUEUE, which)
            stored = await look_up(driver, idempotency_key)
            changed = await driver.execute(_PAUSE, which)
        if changed.rowcount:
            await driver.execute(INSERT_ENTRY, parameters_of(entry))
        status = await read_statuses(driver, [coupon_name])
        outcome = QueueChanged(status[0]) if status else UnknownCoupon()
        return await concluded(driver, idempotency_key, stored, outcome, in_doubt)

    return await database.run_transaction(work)


async def requeue(
    database: Database, ticket_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
) -> TicketRequeued | TicketNotDead | TicketReplaced | UnknownTicket | Replayed | KeyReused:
    """See `ports.Tickets.requeue`."""

    def outcome(ticket: Ticket, *, is_changed: bool) -> TicketRequeued | TicketNotDead | TicketReplaced:
        if is_changed:
            return TicketRequeued(ticket)
        return TicketReplaced() if ticket.state is TicketState.DEAD else TicketNotDead()

    return await _change_dead(database, ticket_id, _REQUEUE, outcome, entry, idempotency_key)


async def discard(
    database: Database, ticket_id: str, entry: AuditEntry
) -> TicketDiscarded | TicketNotDead | UnknownTicket:
    """See `ports.Tickets.discard`."""

    def outcome(ticket: Ticket, *, is_changed: bool) -> TicketDiscarded | TicketNotDead:
        return TicketDiscarded(ticket) if is_changed else TicketNotDead()

    found = await _change_dead(database, ticket_id, _DISCARD, outcome, entry, None)
    if isinstance(found, Replayed | KeyReused):
        raise AssertionError("there is no key")
    return found


async def _change_dead(
    database: Database,
    ticket_id: str,
    statement: str,
    outcome_of: Callable[..., _Changed],
    entry: AuditEntry,
    idempotency_key: IdempotencyKey | None,
) -> _Changed | UnknownTicket | Replayed | KeyReused:
    coupons = await database.fetch(_COUPON, {"id": ticket_id})
    if not coupons:
        return UnknownTicket()
    which = {"id": ticket_id, "coupon_name": coupons[0][0]}

    async def work(driver: Driver, in_doubt: bool) -> _Changed | UnknownTicket | Replayed | KeyReused:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_QUEUE, which)
            stored = await look_up(driver, idempotency_key)
            changed = await driver.execute(statement.encode(), which)
        if changed.rowcount:
            async with driver.pipeline():
                await driver.execute(INSERT_ENTRY, parameters_of(entry))
                await driver.execute(_WAKE, which)
        tickets = await read_tickets(driver, [ticket_id])
        if not tickets:
            return await concluded(driver, idempotency_key, stored, UnknownTicket(), in_doubt)
        # A commit in doubt that was made has written this request's own entry of the audit.
        is_changed = bool(changed.rowcount) or (in_doubt and tickets[0].state is not TicketState.DEAD)
        return await concluded(driver, idempotency_key, stored, outcome_of(tickets[0], is_changed=is_changed), in_doubt)

    return await database.run_transaction(work)
