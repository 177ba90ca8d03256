"""The statements that start tickets, give up their leases, and end those that have waited too long."""

DUE = """
SELECT coupon_name FROM queues
WHERE due_at <= clock_timestamp() OR coupon_name = ANY (%(freed)s)
ORDER BY due_at LIMIT %(most)s
FOR UPDATE SKIP LOCKED
"""
EXISTING = "SELECT coupon_name FROM queues WHERE coupon_name = ANY (%(freed)s)"
ALL_DUE = "SELECT coupon_name FROM queues WHERE due_at IS NOT NULL"
DUE_AT = "SELECT clock_timestamp(), min(due_at) FROM queues WHERE due_at IS NOT NULL"

QUEUES = """
SELECT queue.coupon_name, clock_timestamp() AS now, queue.waiting, queue.head, queue.starts, queue.pace,
    queue.paced_at, queue.paced_starts, queue.stopped_until, queue.due_at, campaign.queue, campaign.starts_at,
    queue.seed IS NOT NULL AND queue.drawn_at IS NULL AS is_to_draw,
    coalesce(coupon.remaining_amount = 0 AND campaign.waiting_list_seconds IS NOT NULL AND campaign.archived_at IS NULL
        AND coalesce(campaign.ends_at > clock_timestamp(), true), false) AS is_sold_out, campaign.ends_at,
    queue.paused OR coalesce(campaign.paused, false) AS is_paused,
    (
        SELECT count(*) FROM tickets
        WHERE coupon_name = queue.coupon_name AND state = 'started' AND leased_until > clock_timestamp()
    ) AS under_way,
    (
        SELECT min(coalesce(next_try_at, leased_until)) FROM tickets
        WHERE coupon_name = queue.coupon_name AND state = 'started'
            AND coalesce(next_try_at, leased_until) > clock_timestamp()
    ) AS next_try_at,
    (
        SELECT count(*) FROM tickets
        WHERE coupon_name = queue.coupon_name AND state = 'started'
            AND coalesce(next_try_at, leased_until) <= clock_timestamp()
    ) AS lapsed
FROM queues AS queue
JOIN coupons AS coupon ON coupon.name = queue.coupon_name
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
WHERE queue.coupon_name = ANY (%(names)s)
ORDER BY queue.due_at
"""

# Whose lease has ended, or whose claim is to be tried again now. One whose claim ends just now is skipped.
AGAIN = """
SELECT coupon_name, place, id::text, user_id, options, joined_at, tries FROM tickets
WHERE coupon_name = ANY (%(names)s) AND state = 'started' AND coalesce(next_try_at, leased_until) <= clock_timestamp()
ORDER BY place LIMIT %(most)s
FOR UPDATE SKIP LOCKED
"""

NEXT = """
SELECT ticket.*
FROM queues AS queue
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
CROSS JOIN LATERAL (
    SELECT coupon_name, place, id::text, user_id, options, joined_at, tries FROM tickets
    WHERE coupon_name = queue.coupon_name AND place >= queue.head AND state = 'waiting'
    ORDER BY place
    LIMIT least(%(most)s, 1 + coalesce(
        least((campaign.queue ->> 'rate_per_second')::int, (campaign.queue ->> 'concurrency')::int), %(usual)s
    ))
) AS ticket
WHERE queue.coupon_name = ANY (%(names)s)
ORDER BY ticket.coupon_name, ticket.place
"""

START = """
UPDATE tickets SET state = 'started', lease = leased.lease, tries = tickets.tries + 1, next_try_at = NULL,
    started_at = coalesce(started_at, leased.at), leased_until = leased.at + make_interval(secs => %(lease_seconds)s)
FROM unnest(%(names)s::text[], %(places)s::bigint[], %(leases)s::uuid[], %(times)s::timestamptz[])
    AS leased (coupon_name, place, lease, at)
WHERE tickets.coupon_name = leased.coupon_name AND tickets.place = leased.place
"""
END = """
UPDATE tickets SET state = ended.state, ended_at = clock_timestamp(), lease = NULL, leased_until = NULL,
    next_try_at = NULL
FROM unnest(%(names)s::text[], %(places)s::bigint[], %(states)s::text[]) AS ended (coupon_name, place, state)
WHERE tickets.coupon_name = ended.coupon_name AND tickets.place = ended.place
"""
COUNT = """
WITH counted AS (
    UPDATE ticket_blocks AS block SET waiting = block.waiting - gone.tickets
    FROM unnest(%(names)s::text[], %(blocks)s::bigint[], %(counts)s::int[]) AS gone (coupon_name, block, tickets)
    WHERE block.coupon_name = gone.coupon_name AND block.block = gone.block
)
DELETE FROM ticket_blocks AS block
USING unnest(%(queues)s::text[], %(heads)s::bigint[]) AS queue (coupon_name, head)
WHERE block.coupon_name = queue.coupon_name AND block.block < queue.head
"""
WRITE = """
UPDATE queues AS queue SET
    waiting = written.waiting, head = written.head, starts = written.starts::timestamptz[], pace = written.pace,
    paced_at = written.paced_at, paced_starts = written.paced_starts, due_at = written.due_at,
    dispatcher = CASE WHEN written.started THEN %(instance)s ELSE dispatcher END,
    dispatched_at = CASE WHEN written.started THEN clock_timestamp() ELSE dispatched_at END
FROM unnest(
    %(names)s::text[], %(waiting)s::int[], %(heads)s::bigint[], %(starts)s::text[], %(paces)s::float8[],
    %(paced_at)s::timestamptz[], %(paced_starts)s::int[], %(due_at)s::timestamptz[], %(started)s::bool[]
) AS written (coupon_name, waiting, head, starts, pace, paced_at, paced_starts, due_at, started)
WHERE queue.coupon_name = written.coupon_name
"""

# A ticket that is locked is ending just now: whoever waited for it could wait in a circle.
_HELD = """
    SELECT ticket.coupon_name, ticket.place, held.retry_seconds, held.counts
    FROM unnest(%(names)s::text[], %(places)s::bigint[], %(leases)s::uuid[], %(retry)s::float8[], %(counts)s::bool[])
        AS held (coupon_name, place, lease, retry_seconds, counts)
    JOIN tickets AS ticket
        ON ticket.coupon_name = held.coupon_name AND ticket.place = held.place AND ticket.lease = held.lease
    WHERE ticket.state = 'started'
    FOR NO KEY UPDATE OF ticket SKIP LOCKED
"""
RENEW = f"""
WITH held AS MATERIALIZED ({_HELD})
UPDATE tickets SET leased_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
FROM held
WHERE tickets.coupon_name = held.coupon_name AND tickets.place = held.place AND leased_until > clock_timestamp()
"""  # noqa: S608 - of constants

PUT_BACK = f"""
WITH held AS MATERIALIZED ({_HELD}), given_up AS (
    UPDATE tickets SET lease = NULL, leased_until = NULL,
        state = CASE WHEN retry_seconds IS NULL THEN 'dead' ELSE 'started' END,
        ended_at = CASE WHEN retry_seconds IS NULL THEN clock_timestamp() END,
        next_try_at = clock_timestamp() + make_interval(secs => retry_seconds),
        tries = tries - CASE WHEN counts THEN 0 ELSE 1 END
    FROM held WHERE tickets.coupon_name = held.coupon_name AND tickets.place = held.place
)
UPDATE queues SET due_at = clock_timestamp(),
    stopped_until = CASE WHEN stop.seconds > 0 THEN clock_timestamp() + make_interval(secs => stop.seconds)
        ELSE stopped_until END
FROM (
    SELECT coupon_name, max(stop_seconds) AS seconds
    FROM unnest(%(names)s::text[], %(stop)s::float8[]) AS failed (coupon_name, stop_seconds)
    GROUP BY coupon_name
) AS stop
WHERE queues.coupon_name = stop.coupon_name
"""  # noqa: S608 - of constants
LOCK_QUEUES = "SELECT FROM queues WHERE coupon_name = ANY (%(names)s) ORDER BY coupon_name FOR UPDATE"

# What was written by the clock before would come too late by as much as it was set back.
BRING_NEAR = """
WITH near AS (
    UPDATE tickets SET next_try_at = CASE WHEN next_try_at IS NOT NULL THEN least(next_try_at, clock_timestamp()) END,
        leased_until = CASE WHEN leased_until IS NOT NULL THEN
            least(leased_until, clock_timestamp() + make_interval(secs => %(lease_seconds)s)) END
    WHERE state = 'started' AND coupon_name = ANY (%(names)s)
)
UPDATE queues SET due_at = clock_timestamp(),
    stopped_until = CASE WHEN stopped_until <= clock_timestamp() THEN stopped_until END
WHERE coupon_name = ANY (%(names)s)
"""
