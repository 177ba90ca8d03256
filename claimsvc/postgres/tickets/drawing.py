"""Drawing the order of a queue by lot, and publishing how it was drawn.

Those who joined before the start get new places, in the order of SHA-256 of the seed and their entries; see
`domain.draw_order`. Who joined between the start and the draw comes after them, first in, first out.
"""

from claimsvc.domain import Draw, NoDraw, draw_entry, seed_hash
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.tickets.joining import LOCK_QUEUE
from claimsvc.postgres.tickets.reading import BLOCK

# 100,000 tickets take some seconds.
_TIMEOUT_SECONDS = 60.0

_DRAW = f"""
WITH queue AS MATERIALIZED (
    SELECT queue.coupon_name, queue.next_place, queue.seed, campaign.starts_at
    FROM queues AS queue JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
    WHERE queue.coupon_name = %(coupon_name)s AND queue.seed IS NOT NULL AND queue.drawn_at IS NULL
        AND campaign.queue ->> 'order' = 'draw' AND coalesce(campaign.starts_at <= clock_timestamp(), true)
), ranked AS MATERIALIZED (
    SELECT ticket.place, is_drawn, queue.next_place - 1 + row_number() OVER (
        ORDER BY is_drawn DESC, CASE WHEN is_drawn THEN sha256(queue.seed || sha256(ticket.id::text::bytea)) END,
            ticket.place
    ) AS new_place
    FROM queue JOIN tickets AS ticket ON ticket.coupon_name = queue.coupon_name AND ticket.state = 'waiting'
    CROSS JOIN LATERAL (SELECT coalesce(ticket.joined_at < queue.starts_at, false) AS is_drawn) AS drawn
), placed AS (
    UPDATE tickets SET place = ranked.new_place FROM ranked
    WHERE tickets.coupon_name = %(coupon_name)s AND tickets.place = ranked.place
), counts AS (
    INSERT INTO ticket_blocks AS block (coupon_name, block, waiting)
    SELECT %(coupon_name)s, new_place / {BLOCK}, count(*) FROM ranked GROUP BY new_place / {BLOCK}
    ON CONFLICT (coupon_name, block) DO UPDATE SET waiting = excluded.waiting
), emptied AS (
    DELETE FROM ticket_blocks AS block USING queue
    WHERE block.coupon_name = queue.coupon_name AND block.block < queue.next_place / {BLOCK}
)
UPDATE queues SET
    drawn_at = clock_timestamp(), due_at = clock_timestamp(), head = queue.next_place,
    next_place = queue.next_place + (SELECT count(*) FROM ranked), drawn_from = queue.next_place,
    drawn = (SELECT count(*) FROM ranked WHERE is_drawn)
FROM queue WHERE queues.coupon_name = queue.coupon_name
"""  # noqa: S608 - of constants

_READ = """
SELECT seed, drawn_at, drawn_from, drawn FROM queues WHERE coupon_name = %(coupon_name)s AND seed IS NOT NULL
"""
_ENTRIES = """
SELECT id::text FROM tickets
WHERE coupon_name = %(coupon_name)s AND place >= %(first)s AND place < %(end)s
ORDER BY place LIMIT %(limit)s
"""


async def draw(database: Database, coupon_name: str) -> None:
    """Draw the order of a queue whose coupon has started, unless it was drawn before."""

    async def work(driver: Driver, in_doubt: bool) -> None:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_QUEUE, {"coupon_name": coupon_name})
            await driver.execute(_DRAW, {"coupon_name": coupon_name})
            await driver.execute("COMMIT", prepare=False)

    await database.run_transaction(work, timeout_seconds=_TIMEOUT_SECONDS)


async def read_draw(database: Database, coupon_name: str, *, after: int, limit: int) -> Draw | NoDraw:
    """See `ports.Tickets.draw`."""
    found = await database.fetch(_READ, {"coupon_name": coupon_name})
    if not found:
        return NoDraw()
    [(seed, drawn_at, drawn_from, drawn)] = found
    if drawn_at is None:
        return Draw(coupon_name, seed_hash(seed), None, None, (), 1)
    bounds = {"first": drawn_from + after, "end": drawn_from + drawn, "limit": limit}
    rows = await database.fetch(_ENTRIES, {"coupon_name": coupon_name, **bounds})
    return Draw(coupon_name, seed_hash(seed), seed, drawn_at, [draw_entry(id_) for (id_,) in rows], after + 1)
