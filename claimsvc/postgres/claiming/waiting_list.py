"""Gives units that come back to those who wait for them, in the transaction that returns them.

Each is held for the first in line, so `remaining_amount` stays 0 while somebody waits. Who waits was found eligible
when joining. The caller has locked the coupons' rows; the queues' rows are locked after them.
"""

from collections.abc import Sequence

from claimsvc.domain import PLACES_IN_A_BLOCK
from claimsvc.postgres.connections import Driver

_LOCK = """
SELECT FROM queues AS queue JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
WHERE queue.coupon_name = ANY (%(coupon_names)s) AND campaign.waiting_list_seconds IS NOT NULL
ORDER BY queue.coupon_name
FOR UPDATE OF queue
"""

# A UUID of version 7, made of a random one.
_CLAIM_ID = """
(
    SELECT (substr(ms, 1, 8) || '-' || substr(ms, 9, 4) || '-7' || substr(random.id, 16))::uuid
    FROM (SELECT lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') AS ms,
        (gen_random_uuid()::text || left(ticket.user_id, 0)) AS id) AS random
)
"""

_SERVE = f"""
WITH coupon AS MATERIALIZED (
    SELECT coupon.name, coupon.remaining_amount AS units, campaign.waiting_list_seconds AS hold_seconds,
        campaign.per_user_limit, campaign.has_codes, queue.head
    FROM campaigns AS campaign
    JOIN coupons AS coupon ON coupon.name = campaign.coupon_name
    JOIN queues AS queue ON queue.coupon_name = campaign.coupon_name
    WHERE campaign.coupon_name = ANY (%(coupon_names)s) AND campaign.waiting_list_seconds IS NOT NULL
        AND coupon.remaining_amount > 0 AND NOT campaign.paused AND campaign.archived_at IS NULL
        AND coalesce(campaign.starts_at <= now(), true) AND coalesce(campaign.ends_at > now(), true)
), first AS MATERIALIZED (
    -- Those whose claims have begun came before those who wait.
    SELECT coupon.*, ticket.place, ticket.user_id, ticket.state, {_CLAIM_ID} AS claim_id,
        row_number() OVER (PARTITION BY coupon.name ORDER BY ticket.state, ticket.place) AS nth
    FROM coupon CROSS JOIN LATERAL (
        (
            SELECT place, user_id, state FROM tickets
            WHERE coupon_name = coupon.name AND state = 'started' AND lease IS NULL AND {{is_below_limit}}
            ORDER BY place LIMIT coupon.units
        )
        UNION ALL
        (
            SELECT place, user_id, state FROM tickets
            WHERE coupon_name = coupon.name AND place >= coupon.head AND state = 'waiting' AND {{is_below_limit}}
            ORDER BY place LIMIT coupon.units
        )
        ORDER BY state, place LIMIT coupon.units
    ) AS ticket
), code AS (
    SELECT coupon.name, free.code, row_number() OVER (PARTITION BY coupon.name ORDER BY free.place) AS nth
    FROM coupon CROSS JOIN LATERAL (
        SELECT code, place FROM codes
        WHERE coupon_name = coupon.name AND claim_id IS NULL AND voided_at IS NULL
            AND (expires_at IS NULL OR expires_at > now())
        ORDER BY place LIMIT coupon.units
    ) AS free
    WHERE coupon.has_codes
), served AS MATERIALIZED (
    SELECT first.*, code.code FROM first LEFT JOIN code ON code.name = first.name AND code.nth = first.nth
    WHERE code.code IS NOT NULL OR NOT first.has_codes
), held AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, slot, held_until)
    SELECT claim_id, name, user_id, 'active', clock_timestamp(), (
        SELECT min(number) FROM generate_series(1, per_user_limit) AS slot (number)
        WHERE NOT EXISTS (
            SELECT FROM user_claims AS other
            WHERE other.coupon_name = served.name AND other.user_id = served.user_id AND other.state = 'active'
                AND other.slot = number
        )
    ), clock_timestamp() + make_interval(secs => hold_seconds)
    FROM served
    RETURNING coupon_name
), given AS (
    UPDATE codes SET claim_id = served.claim_id FROM served
    WHERE codes.coupon_name = served.name AND codes.code = served.code
    RETURNING 1
), taken AS (
    UPDATE coupons SET remaining_amount = remaining_amount - held_out.units
    FROM (SELECT coupon_name, count(*) AS units FROM held GROUP BY coupon_name) AS held_out
    WHERE name = held_out.coupon_name
    RETURNING held_out.units
), ended AS (
    UPDATE tickets SET state = 'claimed', claim_id = served.claim_id, ended_at = clock_timestamp(),
        started_at = coalesce(started_at, clock_timestamp()), next_try_at = NULL
    FROM served
    WHERE tickets.coupon_name = served.name AND tickets.place = served.place AND tickets.state = served.state
    RETURNING 1
), counted AS (
    UPDATE ticket_blocks AS block SET waiting = block.waiting - gone.tickets
    FROM (
        SELECT name, place / {PLACES_IN_A_BLOCK} AS number, count(*) AS tickets FROM served
        WHERE state = 'waiting' GROUP BY 1, 2
    ) AS gone
    WHERE block.coupon_name = gone.name AND block.block = gone.number
), shortened AS (
    UPDATE queues SET waiting = waiting - gone.tickets
    FROM (SELECT name, count(*) AS tickets FROM served WHERE state = 'waiting' GROUP BY 1) AS gone
    WHERE coupon_name = gone.name
)
SELECT 1 / (
    count(*) = (SELECT coalesce(sum(units), 0) FROM taken) AND count(*) = (SELECT count(*) FROM ended)
    AND (SELECT count(*) FROM served WHERE has_codes) = (SELECT count(*) FROM given)
)::int FROM held
"""  # noqa: S608 - of constants
SERVE = _SERVE.format(
    is_below_limit="""(
        SELECT count(*) FROM user_claims AS own
        WHERE own.coupon_name = tickets.coupon_name AND own.user_id = tickets.user_id AND own.state = 'active'
    ) < coupon.per_user_limit"""
)


def is_to_serve(remaining_amount: int, waiting_list_seconds: int | None) -> bool:
    """Whether units of a coupon may be for those who wait: some are left, and it has a waiting list."""
    return remaining_amount > 0 and waiting_list_seconds is not None


async def serve_waiting_list(driver: Driver, coupon_names: Sequence[str]) -> None:
    """Hold the units that are left of these coupons for those who wait for them, in the current pipeline."""
    which = {"coupon_names": list(coupon_names)}
    await driver.execute(_LOCK, which)
    await driver.execute(SERVE.encode(), which)
