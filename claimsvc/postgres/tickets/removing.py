"""Removing tickets that ended long ago, ending those of a purged coupon, and erasing a user's name from them."""

from claimsvc.postgres.tickets.reading import BLOCK

RETENTION = "interval '24 hours'"

# Nobody changes a ticket that has ended, but for a dead one.
PURGE_TICKETS = f"""
WITH old AS MATERIALIZED (
    SELECT coupon_name, place FROM tickets
    WHERE ended_at <= now() - {RETENTION} AND state <> 'dead'
    ORDER BY ended_at
    LIMIT %(most)s
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM tickets AS ticket USING old
    WHERE ticket.coupon_name = old.coupon_name AND ticket.place = old.place
    RETURNING 1
)
SELECT count(*) FROM deleted
"""  # noqa: S608 - of constants
COUNT_TICKETS = f"SELECT count(*) FROM tickets WHERE ended_at <= now() - {RETENTION} AND state <> 'dead'"  # noqa: S608 - of constants

# What waits or is dead would be for ever, because nobody looks at the queue any more. Afterwards all tickets of the
# coupon go as those of other coupons do. The rows of coupon and queue are locked.
END_OF_COUPON = f"""
WITH unfinished AS MATERIALIZED (
    (
        SELECT place, state FROM tickets
        WHERE coupon_name = %(coupon_name)s AND state IN ('waiting', 'started') LIMIT %(most)s
    )
    UNION ALL
    (SELECT place, state FROM tickets WHERE coupon_name = %(coupon_name)s AND state = 'dead' LIMIT %(most)s)
), ended AS (
    UPDATE tickets SET state = 'expired', ended_at = clock_timestamp(), lease = NULL, leased_until = NULL,
        next_try_at = NULL
    FROM unfinished WHERE tickets.coupon_name = %(coupon_name)s AND tickets.place = unfinished.place
    RETURNING tickets.place, unfinished.state = 'waiting' AS waited
), counted AS (
    UPDATE ticket_blocks AS block SET waiting = block.waiting - gone.tickets
    FROM (SELECT place / {BLOCK} AS block, count(*) AS tickets FROM ended WHERE waited GROUP BY 1) AS gone
    WHERE block.coupon_name = %(coupon_name)s AND block.block = gone.block
), shrunk AS (
    UPDATE queues SET waiting = waiting - (SELECT count(*) FROM ended WHERE waited)
    WHERE coupon_name = %(coupon_name)s
)
SELECT count(*) FROM ended
"""  # noqa: S608 - of constants
COUNT_UNFINISHED = """
    SELECT count(*) FROM tickets WHERE coupon_name = %(coupon_name)s AND state IN ('waiting', 'started', 'dead')
"""

# The tickets of a user in the order of places, page by page: there is no index of ended tickets by user.
PAGE_OF_USER = """
WITH page AS MATERIALIZED (
    SELECT coupon_name, place, id, user_id FROM tickets
    WHERE (coupon_name, place) > (%(after_coupon)s, %(after_place)s)
    ORDER BY coupon_name, place LIMIT %(most)s
)
SELECT coupon_name, max(place), coalesce(array_agg(id::text) FILTER (WHERE user_id = %(user_id)s), '{}')
FROM page GROUP BY coupon_name ORDER BY coupon_name
"""

# Those that have not ended leave: whoever makes their claims has lost the lease. Coupon and queue are locked.
ERASE_TICKETS = f"""
WITH named AS MATERIALIZED (
    SELECT place, state FROM tickets
    WHERE coupon_name = %(coupon_name)s AND id = ANY (%(ids)s::uuid[]) AND user_id = %(user_id)s
), erased AS (
    UPDATE tickets SET user_id = %(erased_as)s, options = NULL, refusal = NULL, lease = NULL, leased_until = NULL,
        next_try_at = NULL, ended_at = coalesce(ended_at, clock_timestamp()),
        state = CASE WHEN tickets.state IN ('waiting', 'started', 'dead') THEN 'left' ELSE tickets.state END
    FROM named WHERE tickets.coupon_name = %(coupon_name)s AND tickets.place = named.place
    RETURNING tickets.place, named.state = 'waiting' AS waited
), counted AS (
    UPDATE ticket_blocks AS block SET waiting = block.waiting - gone.tickets
    FROM (SELECT place / {BLOCK} AS block, count(*) AS tickets FROM erased WHERE waited GROUP BY 1) AS gone
    WHERE block.coupon_name = %(coupon_name)s AND block.block = gone.block
), shrunk AS (
    UPDATE queues SET waiting = waiting - (SELECT count(*) FROM erased WHERE waited)
    WHERE coupon_name = %(coupon_name)s
)
SELECT count(*) FROM erased
"""  # noqa: S608 - of constants
