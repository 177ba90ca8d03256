"""Joining the queue of a coupon, and leaving it.

The queue's row is locked first, so `max_length` holds and places are in the order of joining. A batch joins by one
statement, in one round trip.
"""

import time
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from claimsvc.domain import (
    USUAL_QUEUE,
    JoinRequest,
    LeftQueue,
    Queued,
    QueueFull,
    QueueStop,
    SoldOut,
    Ticket,
    TicketStarted,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.domain.pacing import eta_seconds
from claimsvc.ports import Joined
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import STORED_BY_ANOTHER, found, look_up, store
from claimsvc.postgres.tickets.joining_again import first_of_each_key, key_of, with_answers
from claimsvc.postgres.tickets.joining_all import LOCK_TO_JOIN, join_all
from claimsvc.postgres.tickets.options import stored_options
from claimsvc.postgres.tickets.reading import BLOCK, STOPPED, read_tickets
from claimsvc.postgres.transactions import RestartTransactionError

LOCK_QUEUE = "SELECT FROM queues WHERE coupon_name = %(coupon_name)s FOR UPDATE"

# Places go on after those of a coupon of the same name that was purged.
_CREATE_QUEUE = """
INSERT INTO queues (coupon_name, head, next_place)
SELECT name, place, place
FROM coupons CROSS JOIN (
    SELECT coalesce(max(place) + 1, 0) AS place FROM tickets WHERE coupon_name = %(coupon_name)s
) AS first
WHERE name = %(coupon_name)s
ON CONFLICT DO NOTHING
RETURNING coupon_name
"""

_IS_BEFORE_DRAW = """
coalesce(
    campaign.queue ->> 'order' = 'draw' AND queue.drawn_at IS NULL AND campaign.starts_at > clock_timestamp(), false
)
"""

# An instance of an earlier version may have purged the coupon without them.
_END_FORMER = """
UPDATE tickets SET state = 'expired', ended_at = clock_timestamp(), lease = NULL, leased_until = NULL,
    next_try_at = NULL
WHERE coupon_name = %(coupon_name)s AND state IN ('waiting', 'started')
"""
_FORGET_BLOCKS = "DELETE FROM ticket_blocks WHERE coupon_name = %(coupon_name)s"

_NOT_ALL_SECONDS = 0.5
_REMEMBERED = 10_000

# Who has a ticket keeps it: after a commit in doubt also one that has ended meanwhile. Whose claim will confirm a hold
# needs no unit, so nothing but the length of the queue stands in the way; in a batch, these come first. Who would be
# refused at once gets no ticket: what the claim would result in is looked up.
_JOIN = f"""
WITH queue AS MATERIALIZED (
    SELECT queue.waiting, queue.next_place, queue.pace, clock_timestamp() AS now,
        coalesce((campaign.queue ->> 'max_length')::int, {USUAL_QUEUE.max_length}) AS max_length,
        coalesce((campaign.queue ->> 'rate_per_second')::int, {USUAL_QUEUE.rate_per_second}) AS rate,
        coalesce(campaign.per_user_limit, 1) AS per_user_limit,
        -- A draw and a waiting list are for more than there are units.
        CASE WHEN {_IS_BEFORE_DRAW} OR campaign.waiting_list_seconds IS NOT NULL THEN 2147483647
            ELSE coupon.remaining_amount - (
                SELECT count(*) FROM tickets WHERE coupon_name = %(coupon_name)s AND state = 'started'
            )
        END AS units,
        coupon.remaining_amount = 0 AND campaign.waiting_list_seconds IS NOT NULL AS is_waiting_list,
        (coupon.remaining_amount = 0 AND campaign.waiting_list_seconds IS NULL) OR coalesce(
            campaign.archived_at IS NOT NULL OR campaign.paused OR campaign.ends_at <= clock_timestamp()
                OR (campaign.starts_at > clock_timestamp() AND NOT {_IS_BEFORE_DRAW}),
            false
        ) AS is_closed,
        {_IS_BEFORE_DRAW} AS is_before_draw, {STOPPED} AS stopped
    FROM queues AS queue
    JOIN coupons AS coupon ON coupon.name = queue.coupon_name
    LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
    WHERE queue.coupon_name = %(coupon_name)s AND current_setting('claimsvc.locked_queue', true) = %(coupon_name)s
), requested AS (
    SELECT DISTINCT ON (user_id) user_id, id, options, is_eligible, nth
    FROM unnest(%(user_ids)s::text[], %(ids)s::uuid[], %(options)s::jsonb[], %(are_eligible)s::bool[])
        WITH ORDINALITY AS request (user_id, id, options, is_eligible, nth)
    ORDER BY user_id, nth
), known AS (
    SELECT requested.*, ticket.id AS ticket_id,
        NOT claimed.is_held AND (
            queue.is_closed OR (queue.is_waiting_list AND NOT is_eligible)
            OR claimed.claims >= queue.per_user_limit
        ) AS is_refused,
        claimed.is_held
    FROM queue CROSS JOIN requested
    CROSS JOIN LATERAL (
        SELECT count(*) AS claims, coalesce(bool_or(held_until > clock_timestamp()), false) AS is_held FROM (
            SELECT held_until FROM user_claims
            WHERE coupon_name = %(coupon_name)s AND user_id = requested.user_id AND state = 'active'
            LIMIT 1000
        ) AS claim
    ) AS claimed
    LEFT JOIN LATERAL (
        SELECT id FROM tickets
        WHERE coupon_name = %(coupon_name)s AND user_id = requested.user_id AND state IN ('waiting', 'started')
        UNION ALL
        SELECT id FROM tickets
        WHERE %(in_doubt)s AND coupon_name = %(coupon_name)s AND id = requested.id
        LIMIT 1
    ) AS ticket ON true
), newcomers AS (
    SELECT user_id, id, options, is_held, row_number() OVER (ORDER BY is_held DESC, nth) - 1 AS number
    FROM known WHERE ticket_id IS NULL AND NOT is_refused
), joined AS (
    INSERT INTO tickets (coupon_name, place, id, user_id, options, joined_at)
    SELECT %(coupon_name)s, queue.next_place + number, id, user_id, options, queue.now
    FROM newcomers CROSS JOIN queue
    WHERE queue.waiting + number < queue.max_length AND (is_held OR queue.waiting + number < queue.units)
    RETURNING user_id, id, place, joined_at
), counted AS (
    INSERT INTO ticket_blocks AS block (coupon_name, block, waiting)
    SELECT %(coupon_name)s, place / {BLOCK}, count(*) FROM joined GROUP BY place / {BLOCK}
    ON CONFLICT (coupon_name, block) DO UPDATE SET waiting = block.waiting + excluded.waiting
), grown AS (
    UPDATE queues AS queue SET
        waiting = queue.waiting + more.tickets, next_place = queue.next_place + more.tickets,
        due_at = CASE WHEN queue.waiting > 0 THEN queue.due_at ELSE clock_timestamp() END,
        paced_at = CASE WHEN queue.waiting > 0 THEN queue.paced_at END,
        paced_starts = CASE WHEN queue.waiting > 0 THEN queue.paced_starts ELSE 0 END
    FROM (SELECT count(*) AS tickets FROM joined) AS more
    WHERE queue.coupon_name = %(coupon_name)s AND more.tickets > 0
)
SELECT known.user_id, known.ticket_id::text, known.is_refused, joined.id::text, joined.joined_at,
    CASE WHEN NOT queue.is_before_draw THEN queue.waiting + joined.place - queue.next_place END, joined.place,
    queue.pace, queue.rate, queue.is_waiting_list AND NOT queue.is_closed AND NOT known.is_eligible, queue.stopped
FROM known CROSS JOIN queue LEFT JOIN joined ON joined.user_id = known.user_id
"""  # noqa: S608 - of constants

_LEAVE = f"""
WITH gone AS (
    UPDATE tickets SET state = 'left', ended_at = clock_timestamp()
    WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'waiting'
    RETURNING place
), counted AS (
    UPDATE ticket_blocks SET waiting = waiting - 1 FROM gone
    WHERE coupon_name = %(coupon_name)s AND block = gone.place / {BLOCK}
)
UPDATE queues SET waiting = waiting - 1 FROM gone WHERE coupon_name = %(coupon_name)s
"""  # noqa: S608 - of constants

_COUPON = "SELECT coupon_name FROM tickets WHERE id = %(id)s"


class Joining:
    """Lets claims wait in queues.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # Until when (monotonic seconds) it is assumed that not all of a batch can join a queue.
        self._not_all_until: dict[str, float] = {}

    async def join(self, coupon_name: str, requests: Sequence[JoinRequest]) -> list[Joined | None]:
        """See `ports.Tickets.join`."""
        joined: Mapping[int, Queued] = {}
        was_in_doubt = False

        async def work(driver: Driver, in_doubt: bool) -> Mapping[int, Queued] | None:
            nonlocal was_in_doubt
            was_in_doubt = in_doubt
            return {} if in_doubt else await join_all(driver, coupon_name, requests)

        now = time.monotonic()
        if self._not_all_until.get(coupon_name, now) <= now and all(map(_is_usual, requests)):
            found = await self._database.run_transaction(work)
            if found is None:
                if len(self._not_all_until) >= _REMEMBERED:
                    self._not_all_until.clear()
                self._not_all_until[coupon_name] = now + _NOT_ALL_SECONDS
            joined = found or {}
        others = [request for number, request in enumerate(requests) if number not in joined]
        found_ = await _join(self._database, coupon_name, others, was_in_doubt) if others else []
        if others and all(isinstance(each, Queued) for each in found_):
            # The queue was made just now, or has room again.
            self._not_all_until.pop(coupon_name, None)
        results = iter(found_)
        return [joined[number] if number in joined else next(results) for number in range(len(requests))]


async def _join(
    database: Database, coupon_name: str, requests: Sequence[JoinRequest], was_in_doubt: bool
) -> list[Joined | None]:
    """Let these join, whoever they are; see `Joining.join`. A commit that was in doubt may have let them join."""
    keys = [key for each in requests if (key := key_of(each)) is not None]

    async def work(driver: Driver, in_doubt: bool) -> list[Joined | None]:
        in_doubt = in_doubt or was_in_doubt
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_TO_JOIN, {"coupon_name": coupon_name})
            stored = await look_up(driver, *keys)
            if not keys:
                rows = await driver.execute(_JOIN, _parameters(coupon_name, requests, in_doubt))
                await driver.execute("COMMIT", prepare=False)
        if not keys:
            return await _results(driver, coupon_name, requests, await rows.fetchall())
        answers = await found(stored)
        new = first_of_each_key(requests, answers)
        rows = await driver.execute(_JOIN, _parameters(coupon_name, new, in_doubt))
        found_ = await _results(driver, coupon_name, new, await rows.fetchall())
        results = {request.ticket_id: result for request, result in zip(new, found_, strict=True)}
        joined, stored_ = with_answers(requests, results, answers, in_doubt)
        try:
            async with driver.pipeline():
                await store(driver, stored_)
                await driver.execute("COMMIT", prepare=False)
        except STORED_BY_ANOTHER as error:
            raise RestartTransactionError from error
        return joined

    joined = await database.run_transaction(work)
    if any(isinstance(each, UnknownCoupon) for each in joined) and await create_queue(database, coupon_name):
        return await database.run_transaction(work)
    return joined


async def create_queue(database: Database, coupon_name: str) -> bool:
    """Create the queue of a coupon. Returns whether there is such a coupon."""

    async def work(driver: Driver, in_doubt: bool) -> bool:
        which = {"coupon_name": coupon_name}
        await driver.execute("BEGIN", prepare=False)
        done = await driver.execute(_CREATE_QUEUE, which)
        async with driver.pipeline():
            if done.rowcount:
                await driver.execute(_END_FORMER, which)
                await driver.execute(_FORGET_BLOCKS, which)
            exists = await driver.execute("SELECT FROM coupons WHERE name = %(coupon_name)s", which)
            await driver.execute("COMMIT", prepare=False)
        return bool(exists.rowcount)

    try:
        return await database.run_transaction(work)
    except psycopg.errors.ForeignKeyViolation:
        return False  # the coupon was purged meanwhile


def _parameters(coupon_name: str, requests: Sequence[JoinRequest], in_doubt: bool) -> dict[str, Any]:
    return {
        "in_doubt": in_doubt,
        "coupon_name": coupon_name,
        "user_ids": [each.user_id for each in requests],
        "ids": [each.ticket_id for each in requests],
        "are_eligible": [each.is_eligible for each in requests],
        "options": [None if (written := stored_options(each.options)) is None else Jsonb(written) for each in requests],
    }


async def _results(
    driver: Driver, coupon_name: str, requests: Sequence[JoinRequest], rows: Sequence[tuple[Any, ...]]
) -> list[Joined | None]:
    """Return what each request results in; that of a user who asked twice is the same ticket."""
    if not rows:
        return [UnknownCoupon()] * len(requests)
    by_user = {row[0]: row[1:] for row in rows}
    old_ids = [ticket_id for ticket_id, *_ in by_user.values() if ticket_id is not None]
    old = {each.id: each for each in await read_tickets(driver, old_ids)} if old_ids else {}
    results: list[Joined | None] = []
    for request in requests:
        ticket_id, is_refused, new_id, joined_at, ahead, place, pace, rate, is_to_be_looked_at, stopped = by_user[
            request.user_id
        ]
        if ticket_id is not None and ticket_id in old:
            results.append(Queued(old[ticket_id]))
        elif new_id is not None:
            eta = None if ahead is None or stopped is not None else eta_seconds(ahead, pace, rate)
            results.append(
                Queued(
                    Ticket(
                        new_id,
                        coupon_name,
                        request.user_id,
                        TicketState.WAITING,
                        joined_at,
                        ahead=ahead,
                        eta_seconds=eta,
                        stopped=None if stopped is None else QueueStop(stopped),
                        place=place,
                    )
                )
            )
        elif is_refused:
            results.append(SoldOut() if is_to_be_looked_at else None)
        else:
            results.append(QueueFull(min(60, max(1, ceil(1 / max(pace or rate, 0.01))))))
    return results


async def leave(database: Database, ticket_id: str) -> LeftQueue | TicketStarted | UnknownTicket:
    """See `ports.Tickets.leave`."""
    coupons = await database.fetch(_COUPON, {"id": ticket_id})
    if not coupons:
        return UnknownTicket()
    which = {"coupon_name": coupons[0][0], "id": ticket_id}

    async def work(driver: Driver, in_doubt: bool) -> tuple[Ticket | None, bool]:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_QUEUE, which)
            left = await driver.execute(_LEAVE, which)
            await driver.execute("COMMIT", prepare=False)
        return next(iter(await read_tickets(driver, [ticket_id])), None), bool(left.rowcount)

    ticket, is_new = await database.run_transaction(work)
    if ticket is None:
        return UnknownTicket()
    return LeftQueue(ticket, is_new) if ticket.state is TicketState.LEFT else TicketStarted(ticket)


def _is_usual(request: JoinRequest) -> bool:
    return (request.options is None or request.options.idempotency_key is None) and "\n" not in request.user_id
