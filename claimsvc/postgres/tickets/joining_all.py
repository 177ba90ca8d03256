"""The usual case of joining a queue: all of a batch join, by one statement that looks at as little as possible.

Who waits already, or has a claim, does not join here, and nobody does if not all would fit or the coupon cannot be
claimed now: `joining` does all of that.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from claimsvc.domain import USUAL_QUEUE, ClaimOptions, JoinRequest, Queued, QueueStop, Ticket, TicketState
from claimsvc.domain.pacing import eta_seconds
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.tickets.options import stored_options
from claimsvc.postgres.tickets.reading import BLOCK, STOPPED

# A queue that another transaction makes between this and the statement that joins is not locked: the setting tells.
LOCK_TO_JOIN = """
WITH locked AS MATERIALIZED (SELECT coupon_name FROM queues WHERE coupon_name = %(coupon_name)s FOR UPDATE)
SELECT set_config('claimsvc.locked_queue', coupon_name, true) FROM locked
"""

# Places need not be without gaps. A subquery with LIMIT keeps the planner at one index look-up per user; see
# `fast_path`.
_JOIN_ALL = f"""
WITH queue AS MATERIALIZED (
    SELECT queue.waiting, queue.next_place, queue.pace, clock_timestamp() AS now, {STOPPED} AS stopped,
        coalesce((campaign.queue ->> 'rate_per_second')::int, {USUAL_QUEUE.rate_per_second}) AS rate
    FROM queues AS queue
    JOIN coupons AS coupon ON coupon.name = queue.coupon_name
    LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
    WHERE queue.coupon_name = %(coupon_name)s AND current_setting('claimsvc.locked_queue', true) = %(coupon_name)s
        AND queue.waiting + %(size)s <= coalesce((campaign.queue ->> 'max_length')::int, {USUAL_QUEUE.max_length})
        AND queue.waiting + %(size)s <= coupon.remaining_amount - (
            SELECT count(*) FROM tickets WHERE coupon_name = %(coupon_name)s AND state = 'started'
        )
        AND campaign.archived_at IS NULL AND NOT coalesce(campaign.paused, false)
        AND coalesce(campaign.ends_at > clock_timestamp(), true)
        AND coalesce(campaign.starts_at <= clock_timestamp(), true)
), joined AS (
    INSERT INTO tickets (coupon_name, place, id, user_id, options, joined_at)
    SELECT %(coupon_name)s, queue.next_place + nth - 1, id, user_id, options, queue.now
    FROM queue CROSS JOIN unnest(
        string_to_array(%(user_ids)s, E'\\n'), string_to_array(%(ids)s, E'\\n')::uuid[],
        string_to_array(%(options)s, E'\\n', '')::jsonb[]
    ) WITH ORDINALITY AS request (user_id, id, options, nth)
    WHERE (
        SELECT true FROM user_claims
        WHERE coupon_name = %(coupon_name)s AND user_id = request.user_id AND state = 'active' LIMIT 1
    ) IS NULL
    ON CONFLICT DO NOTHING
    RETURNING place
), counted AS (
    INSERT INTO ticket_blocks AS block (coupon_name, block, waiting)
    SELECT %(coupon_name)s, place / {BLOCK}, count(*) FROM joined GROUP BY place / {BLOCK}
    ON CONFLICT (coupon_name, block) DO UPDATE SET waiting = block.waiting + excluded.waiting
), grown AS (
    UPDATE queues SET
        waiting = queues.waiting + more.tickets, next_place = queues.next_place + %(size)s,
        due_at = CASE WHEN queues.waiting > 0 THEN due_at ELSE clock_timestamp() END,
        paced_at = CASE WHEN queues.waiting > 0 THEN paced_at END,
        paced_starts = CASE WHEN queues.waiting > 0 THEN paced_starts ELSE 0 END
    FROM (SELECT count(*) AS tickets FROM joined) AS more
    WHERE queues.coupon_name = %(coupon_name)s AND more.tickets > 0
)
SELECT queue.now, queue.waiting, queue.next_place, queue.pace, queue.rate, queue.stopped,
    CASE WHEN more.tickets < %(size)s THEN more.numbers END
FROM queue CROSS JOIN (
    SELECT count(*) AS tickets,
        coalesce(array_agg((place - queue.next_place)::int ORDER BY place), '{{}}') AS numbers
    FROM joined CROSS JOIN queue
) AS more
"""  # noqa: S608 - of constants


async def join_all(driver: Driver, coupon_name: str, requests: Sequence[JoinRequest]) -> dict[int, Queued] | None:
    """Let all of these join who have neither a ticket nor a claim, in one transaction of one round trip.

    Args:
        driver: a connection outside a transaction.
        coupon_name: the coupon.
        requests: without idempotency keys, of users whose ids have no line breaks.

    Returns:
        Of those who joined, what their requests result in, by their number in `requests`. None if nobody joined,
        because not everybody would have.
    """
    async with driver.pipeline():
        await driver.execute("BEGIN", prepare=False)
        await driver.execute(LOCK_TO_JOIN, {"coupon_name": coupon_name})
        done = await driver.execute(_JOIN_ALL, _parameters(coupon_name, requests))
        await driver.execute("COMMIT", prepare=False)
    row = await done.fetchone()
    if row is None:
        return None
    now, waiting, next_place, pace, rate, stopped, numbers = row
    stop = None if stopped is None else QueueStop(stopped)
    joined: dict[int, Queued] = {}
    for ahead, number in enumerate(range(len(requests)) if numbers is None else numbers, waiting):
        request = requests[number]
        eta = None if stop is not None else eta_seconds(ahead, pace, rate)
        joined[number] = Queued(
            Ticket(
                request.ticket_id,
                coupon_name,
                request.user_id,
                TicketState.WAITING,
                now,
                ahead,
                eta,
                stop,
                place=next_place + number,
            )
        )
    return joined


def _parameters(coupon_name: str, requests: Sequence[JoinRequest]) -> Mapping[str, Any]:
    # Lines cost the driver a fraction of what arrays cost. JSON has no line breaks; an empty line is NULL.
    return {
        "coupon_name": coupon_name,
        "size": len(requests),
        "user_ids": "\n".join([each.user_id for each in requests]),
        "ids": "\n".join([each.ticket_id for each in requests]),
        "options": "\n".join([_json(each.options) for each in requests]),
    }


def _json(options: ClaimOptions | None) -> str:
    written = None if options is None else stored_options(options)
    return "" if written is None else json.dumps(written)
