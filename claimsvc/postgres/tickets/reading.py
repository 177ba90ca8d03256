"""Reading tickets and the state of queues."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from psycopg.rows import dict_row

from claimsvc.domain import (
    PLACES_IN_A_BLOCK,
    USUAL_QUEUE,
    Claim,
    Queue,
    QueueProgress,
    QueueStatus,
    QueueStop,
    Ticket,
    TicketState,
)
from claimsvc.domain.pacing import eta_seconds
from claimsvc.domain.stored_answers import decode
from claimsvc.postgres.claims import claim_of
from claimsvc.postgres.code_rows import CODE_TERMS
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.coupon_rows import queue_of
from claimsvc.postgres.database import Database

BLOCK = PLACES_IN_A_BLOCK

# Those before its block by the counts of blocks, those in it one by one: the same for the first and the 100,000th.
_AHEAD = f"""
    (
        SELECT coalesce(sum(block.waiting), 0) FROM ticket_blocks AS block
        WHERE block.coupon_name = ticket.coupon_name AND block.block < ticket.place / {BLOCK}
    ) + (
        SELECT count(*) FROM tickets AS other
        WHERE other.coupon_name = ticket.coupon_name
            AND other.place >= greatest(queue.head, ticket.place / {BLOCK} * {BLOCK}) AND other.place < ticket.place
            AND other.state = 'waiting'
    )
"""  # noqa: S608 - of constants

_TICKET = """
    ticket.id::text, ticket.coupon_name, ticket.user_id, ticket.state, ticket.joined_at, ticket.tries,
    ticket.started_at, ticket.ended_at, ticket.refusal, ticket.place
"""
STOPPED = """
    CASE
        WHEN queue.paused OR campaign.paused THEN 'paused'
        WHEN campaign.starts_at > clock_timestamp() THEN 'not-started'
        WHEN queue.stopped_until > clock_timestamp() THEN 'unavailable'
        WHEN campaign.waiting_list_seconds IS NOT NULL AND (
            SELECT remaining_amount = 0 FROM coupons WHERE name = queue.coupon_name
        ) THEN 'sold-out'
    END
"""

# The order of those who wait for a draw is not known yet.
_TO_BE_DRAWN = "coalesce(campaign.queue ->> 'order' = 'draw' AND queue.drawn_at IS NULL, false)"

_READ = f"""
SELECT {_TICKET}, CASE WHEN ticket.state = 'waiting' AND NOT {_TO_BE_DRAWN} THEN {_AHEAD} END AS ahead,
    CASE WHEN ticket.ended_at IS NULL THEN {STOPPED} END AS stopped, queue.pace, campaign.queue,
    claim.id::text AS claim_id, claim.user_id AS claimant, claim.state AS claim_state, claim.claimed_at,
    claim.held_until, claim.ended_at AS claim_ended_at, code.code, {CODE_TERMS} AS code_terms
FROM tickets AS ticket
LEFT JOIN queues AS queue ON queue.coupon_name = ticket.coupon_name
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = ticket.coupon_name
LEFT JOIN user_claims AS claim ON claim.coupon_name = ticket.coupon_name AND claim.id = ticket.claim_id
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
WHERE ticket.id = ANY (%(ids)s::uuid[]) AND (ticket.ended_at IS NULL OR ticket.state = 'dead'
    OR ticket.ended_at > clock_timestamp() - interval '24 hours')
"""  # noqa: S608 - of constants

_LISTED = f"""
SELECT {_TICKET} FROM tickets AS ticket
WHERE coupon_name = %(coupon_name)s AND state = ANY (%(states)s) AND place > coalesce((
    SELECT place FROM tickets WHERE coupon_name = %(coupon_name)s AND id = %(after)s::uuid
), -1)
ORDER BY place LIMIT %(limit)s
"""  # noqa: S608 - of constants

_DEAD = f"""
SELECT {_TICKET} FROM tickets AS ticket
WHERE state = 'dead' AND (ended_at, id) > (
    coalesce((SELECT ended_at FROM tickets WHERE id = %(after)s::uuid), '-infinity'),
    coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000')
)
ORDER BY ended_at, id LIMIT %(limit)s
"""  # noqa: S608 - of constants

_STATUSES = f"""
SELECT queue.coupon_name, campaign.queue, queue.waiting, queue.pace, {STOPPED} AS stopped, queue.paused,
    queue.dispatcher, queue.dispatched_at, coalesce(dead.tickets, 0) AS dead,
    (SELECT count(*) FROM tickets WHERE coupon_name = queue.coupon_name AND state = 'started') AS started,
    (
        SELECT joined_at FROM tickets
        WHERE coupon_name = queue.coupon_name AND place >= queue.head AND state = 'waiting' ORDER BY place LIMIT 1
    ) AS oldest_joined_at
FROM queues AS queue
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
LEFT JOIN (
    SELECT coupon_name, count(*) AS tickets FROM tickets WHERE state = 'dead' GROUP BY coupon_name
) AS dead ON dead.coupon_name = queue.coupon_name
WHERE CASE WHEN %(names)s::text[] IS NULL THEN queue.due_at IS NOT NULL OR queue.waiting > 0 OR dead.tickets > 0
    ELSE queue.coupon_name = ANY (%(names)s) END
ORDER BY queue.coupon_name
"""  # noqa: S608 - of constants


_PROGRESS = f"""
SELECT queue.coupon_name, queue.pace, campaign.queue, {STOPPED} AS stopped, (
    SELECT coalesce(jsonb_object_agg(block.block, block.waiting), '{{}}') FROM ticket_blocks AS block
    WHERE block.coupon_name = queue.coupon_name
) AS blocks
FROM queues AS queue LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
WHERE queue.coupon_name = ANY (%(names)s)
"""  # noqa: S608 - of constants

_PLACES = f"""
SELECT wanted.coupon_name, wanted.block, (
    SELECT array_agg(place ORDER BY place) FROM tickets
    WHERE coupon_name = wanted.coupon_name AND place >= wanted.block * {BLOCK} AND place < (wanted.block + 1) * {BLOCK}
        AND state = 'waiting'
)
FROM unnest(%(names)s::text[], %(blocks)s::bigint[]) AS wanted (coupon_name, block)
"""  # noqa: S608 - of constants


async def progress(database: Database, coupon_names: Collection[str]) -> dict[str, QueueProgress]:
    """See `ports.Tickets.progress`."""
    return {
        row["coupon_name"]: QueueProgress(
            row["pace"],
            (queue_of(row["queue"]) or USUAL_QUEUE).rate_per_second,
            None if row["stopped"] is None else QueueStop(row["stopped"]),
            dict(sorted((int(block), waiting) for block, waiting in row["blocks"].items())),
        )
        for row in await database.fetch_dicts(_PROGRESS, {"names": list(coupon_names)})
    }


async def places(database: Database, blocks: Collection[tuple[str, int]]) -> dict[tuple[str, int], list[int]]:
    """See `ports.Tickets.places`."""
    wanted = {"names": [name for name, _ in blocks], "blocks": [block for _, block in blocks]}
    return {(name, block): waiting or [] for name, block, waiting in await database.fetch(_PLACES, wanted)}


async def read_tickets(driver: Driver, ticket_ids: Sequence[str]) -> list[Ticket]:
    """Read tickets with their places in the queue, and the claims that they ended with."""
    cursor = await driver.cursor(row_factory=dict_row).execute(_READ.encode(), {"ids": list(ticket_ids)})
    return [_ticket(row) for row in await cursor.fetchall()]


async def tickets_of(
    database: Database, coupon_name: str, *, states: Collection[TicketState], after: str | None, limit: int
) -> list[Ticket]:
    """See `ports.Tickets.tickets`."""
    wanted = {"coupon_name": coupon_name, "states": [str(each) for each in states], "after": after, "limit": limit}
    return [_ticket(row) for row in await database.fetch_dicts(_LISTED, wanted)]


async def dead_letters(database: Database, *, after: str | None, limit: int) -> list[Ticket]:
    """See `ports.Tickets.dead_letters`."""
    return [_ticket(row) for row in await database.fetch_dicts(_DEAD, {"after": after, "limit": limit})]


async def statuses(database: Database, coupon_names: Collection[str] | None) -> list[QueueStatus]:
    """See `ports.Tickets.statuses`."""

    async def query(driver: Driver) -> list[QueueStatus]:
        return await read_statuses(driver, coupon_names)

    return await database.read(query)


async def read_statuses(driver: Driver, coupon_names: Collection[str] | None) -> list[QueueStatus]:
    """Return the state of these queues, or of all that matter."""
    names = None if coupon_names is None else list(coupon_names)
    cursor = await driver.cursor(row_factory=dict_row).execute(_STATUSES.encode(), {"names": names})
    return [_status(row) for row in await cursor.fetchall()]


def _status(row: Mapping[str, Any]) -> QueueStatus:
    return QueueStatus(
        coupon_name=row["coupon_name"],
        queue=queue_of(row["queue"]) or USUAL_QUEUE,
        waiting=row["waiting"],
        started=row["started"],
        dead=row["dead"],
        pace=row["pace"] or 0.0,
        stopped=None if row["stopped"] is None else QueueStop(row["stopped"]),
        is_paused=row["paused"],
        oldest_joined_at=row["oldest_joined_at"],
        dispatcher=row["dispatcher"],
        dispatched_at=row["dispatched_at"],
    )


def _ticket(row: Mapping[str, Any]) -> Ticket:
    stopped = row.get("stopped")
    ahead = row.get("ahead")
    queue: Queue = queue_of(row.get("queue")) or USUAL_QUEUE
    is_moving = ahead is not None and stopped is None
    return Ticket(
        row["id"],
        row["coupon_name"],
        row["user_id"],
        TicketState(row["state"]),
        row["joined_at"],
        ahead=None if ahead is None else int(ahead),
        eta_seconds=eta_seconds(int(ahead or 0), row["pace"], queue.rate_per_second) if is_moving else None,
        stopped=None if stopped is None else QueueStop(stopped),
        tries=row["tries"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        claim=_claim(row),
        refusal=None if row["refusal"] is None else decode(row["refusal"]),
        place=row["place"],
    )


def _claim(row: Mapping[str, Any]) -> Claim | None:
    if row.get("claim_id") is None:
        return None
    return claim_of(
        row["claim_id"],
        row["coupon_name"],
        row["claimant"],
        row["claim_state"],
        row["claimed_at"],
        row["held_until"],
        row["claim_ended_at"],
        row["code"],
        row["code_terms"],
    )
