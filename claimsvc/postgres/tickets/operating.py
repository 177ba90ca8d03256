"""What operators do to queues and dead letters."""

from claimsvc.domain import AuditEntry, QueueStatus, Ticket, TicketNotDead, TicketState, UnknownCoupon, UnknownTicket
from claimsvc.postgres.audit import INSERT_ENTRY, parameters_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.tickets.joining import LOCK_QUEUE, create_queue
from claimsvc.postgres.tickets.reading import read_tickets, statuses

_PAUSE = """
UPDATE queues SET paused = %(paused)s, due_at = CASE WHEN %(paused)s THEN due_at ELSE clock_timestamp() END
WHERE coupon_name = %(coupon_name)s AND paused <> %(paused)s
"""

# A user with another ticket meanwhile keeps that one.
_REQUEUE = """
UPDATE tickets SET state = 'started', ended_at = NULL, tries = 0, next_try_at = clock_timestamp()
WHERE id = %(id)s AND coupon_name = %(coupon_name)s AND state = 'dead' AND NOT EXISTS (
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
    database: Database, coupon_name: str, entry: AuditEntry, *, paused: bool
) -> QueueStatus | UnknownCoupon:
    """See `ports.Tickets.pause`."""
    if not await create_queue(database, coupon_name):
        return UnknownCoupon()

    async def work(driver: Driver, in_doubt: bool) -> None:
        await driver.execute("BEGIN", prepare=False)
        done = await driver.execute(_PAUSE, {"coupon_name": coupon_name, "paused": paused})
        async with driver.pipeline():
            if done.rowcount:
                await driver.execute(INSERT_ENTRY, parameters_of(entry))
            await driver.execute("COMMIT", prepare=False)

    await database.run_transaction(work)
    found = await statuses(database, [coupon_name])
    return found[0] if found else UnknownCoupon()


async def requeue(database: Database, ticket_id: str, entry: AuditEntry) -> Ticket | TicketNotDead | UnknownTicket:
    """See `ports.Tickets.requeue`."""
    return await _change_dead(database, ticket_id, _REQUEUE, TicketState.STARTED, entry)


async def discard(database: Database, ticket_id: str, entry: AuditEntry) -> Ticket | TicketNotDead | UnknownTicket:
    """See `ports.Tickets.discard`."""
    return await _change_dead(database, ticket_id, _DISCARD, TicketState.LEFT, entry)


async def _change_dead(
    database: Database, ticket_id: str, statement: str, becomes: TicketState, entry: AuditEntry
) -> Ticket | TicketNotDead | UnknownTicket:
    coupons = await database.fetch(_COUPON, {"id": ticket_id})
    if not coupons:
        return UnknownTicket()
    which = {"id": ticket_id, "coupon_name": coupons[0][0]}

    async def work(driver: Driver, in_doubt: bool) -> Ticket | TicketNotDead | UnknownTicket:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_QUEUE, which)
            changed = await driver.execute(statement.encode(), which)
        async with driver.pipeline():
            if changed.rowcount:
                await driver.execute(INSERT_ENTRY, parameters_of(entry))
                await driver.execute(_WAKE, which)
            await driver.execute("COMMIT", prepare=False)
        tickets = await read_tickets(driver, [ticket_id])
        if not tickets:
            return UnknownTicket()
        is_ours = bool(changed.rowcount) or (in_doubt and tickets[0].state is becomes)
        return tickets[0] if is_ours else TicketNotDead()

    return await database.run_transaction(work)
