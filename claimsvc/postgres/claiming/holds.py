"""Statements and steps on holds that end, and on holds whose code expires. The caller has locked the coupons' rows."""

from collections.abc import Sequence
from typing import Any

from claimsvc.postgres.audit import insert_entry_of_claims
from claimsvc.postgres.connections import Driver

_IS_DUE = "state = 'active' AND held_until <= now()"
_SETTLE = """
WITH due AS (
    UPDATE user_claims SET state = 'expired', ended_at = clock_timestamp() {which}
    RETURNING coupon_name, id
), freed AS (
    -- Its user has not seen the code, so it can be given again.
    UPDATE codes SET claim_id = NULL FROM due WHERE codes.coupon_name = due.coupon_name AND codes.claim_id = due.id
    RETURNING due.id
), returned AS (
    -- If the coupon has codes, each unit is a code: a unit held before the first codes were added does not return.
    UPDATE coupons SET amount = coupons.amount - expired.lost,
        remaining_amount = coupons.remaining_amount + expired.units - expired.lost,
        ended_count = coalesce(coupons.ended_count, 0) + expired.units
    FROM (
        SELECT due.coupon_name, count(*) AS units, count(*) FILTER (WHERE has_codes AND freed.id IS NULL) AS lost
        FROM due
        LEFT JOIN freed ON freed.id = due.id
        LEFT JOIN campaigns ON campaigns.coupon_name = due.coupon_name
        GROUP BY due.coupon_name
    ) AS expired
    WHERE name = expired.coupon_name
    RETURNING expired.units
), audited AS (
    {audited}
)
SELECT count(*), 1 / (count(*) = (SELECT coalesce(sum(units), 0) FROM returned))::int FROM due
"""
_AUDITED = insert_entry_of_claims("due", "claim.expire", actor="'clock'")
_SETTLED_AT_ONCE = 1000
SETTLE_HOLDS = _SETTLE.format(
    audited=_AUDITED,
    which=f"""FROM unnest(%(coupon_names)s::text[]) AS requested (name) CROSS JOIN LATERAL (
        SELECT claimed_at AS at, id AS claim_id FROM user_claims
        WHERE coupon_name = requested.name AND {_IS_DUE}
        ORDER BY held_until
        LIMIT %(most)s
    ) AS expired
    WHERE coupon_name = requested.name AND claimed_at = expired.at AND id = expired.claim_id""",  # noqa: S608 - of constants
)
"""Returns the units of expired holds to stock, and returns how many. The coupons' rows must be locked.

It settles `most` holds per coupon at most, the earliest expired first, so that claims do not wait long."""

# All of them, because they may hold the same coupon again.
SETTLE_HOLDS_OF = _SETTLE.format(
    audited=_AUDITED,
    which=f"""FROM unnest(%(names)s::text[], %(user_ids)s::text[]) AS requested (name, claimant)
    WHERE coupon_name = requested.name AND user_id = requested.claimant AND {_IS_DUE}""",
)
"""The same for the holds of `user_ids` on the coupons `names`."""

SETTLE_HOLD = _SETTLE.format(
    audited=_AUDITED, which=f"WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND {_IS_DUE}"
)
"""The same as `SETTLE_HOLDS` for one claim."""


def holds_of(coupon_names: Sequence[str], *, claims: int = 0) -> dict[str, Any]:
    """Return the parameters of `SETTLE_HOLDS`.

    Args:
        coupon_names: the coupons.
        claims: how many claims follow. At least as many holds are settled, so that none of the claims finds the coupon
            sold out while units are due.
    """
    return {"coupon_names": coupon_names, "most": max(claims, _SETTLED_AT_ONCE)}


# Its user has not seen the code.
_VOID_DEAD_CODES = """
UPDATE codes SET claim_id = NULL, voided_at = clock_timestamp()
FROM unnest(%(names)s::text[], %(ids)s::uuid[]) AS requested (name, claim_id)
JOIN user_claims AS claim ON claim.coupon_name = requested.name AND claim.id = requested.claim_id
WHERE codes.coupon_name = requested.name AND codes.claim_id = requested.claim_id AND codes.expires_at <= now()
    AND claim.state = 'active' AND claim.held_until IS NOT NULL
RETURNING codes.coupon_name, claim.id::text
"""
# The dead code leaves the amount, and the free one what remains of it.
_GIVE_OTHER_CODES = """
WITH codeless AS (
    SELECT name, claim_id, row_number() OVER (PARTITION BY name ORDER BY claim_id) AS nth
    FROM unnest(%(names)s::text[], %(ids)s::uuid[]) AS released (name, claim_id)
), free AS (
    SELECT name, code, row_number() OVER (PARTITION BY name ORDER BY place) AS nth
    FROM (SELECT name, count(*) AS units FROM codeless GROUP BY name) AS requested
    CROSS JOIN LATERAL (
        SELECT code, place FROM codes
        WHERE coupon_name = requested.name AND claim_id IS NULL AND voided_at IS NULL
            AND (expires_at IS NULL OR expires_at > now())
        ORDER BY place
        LIMIT requested.units
    ) AS next_codes
), given AS (
    UPDATE codes SET claim_id = codeless.claim_id
    FROM codeless JOIN free ON free.name = codeless.name AND free.nth = codeless.nth
    WHERE codes.coupon_name = free.name AND codes.code = free.code
    RETURNING codes.coupon_name, codes.claim_id
), taken AS (
    UPDATE coupons SET amount = coupons.amount - given_out.units,
        remaining_amount = coupons.remaining_amount - given_out.units
    FROM (SELECT coupon_name, count(*) AS units FROM given GROUP BY coupon_name) AS given_out
    WHERE name = given_out.coupon_name
    RETURNING given_out.units
)
SELECT coupon_name, claim_id::text,
    1 / ((SELECT count(*) FROM given) = (SELECT coalesce(sum(units), 0) FROM taken))::int
FROM given
"""
_END_HOLDS = _SETTLE.format(
    audited=_AUDITED,
    which="""FROM unnest(%(names)s::text[], %(ids)s::uuid[]) AS codeless (name, claim_id)
    WHERE coupon_name = codeless.name AND id = codeless.claim_id AND state = 'active' AND held_until IS NOT NULL""",
)


async def replace_dead_codes(driver: Driver, claims: Sequence[tuple[str, str]]) -> bool:
    """Give held claims whose codes have expired the next free codes, and end the holds for which none is left.

    A hold's code is shown only when it is confirmed, so it must be valid then. Confirmed claims are left alone.

    Args:
        driver: a connection in a transaction that has locked the coupons.
        claims: coupon and id of each.

    Returns:
        Whether anything was changed.
    """
    dead = await _fetch(driver, _VOID_DEAD_CODES, claims)
    if dead:
        given = {row[:2] for row in await _fetch(driver, _GIVE_OTHER_CODES, dead)}
        if ended := [each for each in dead if each not in given]:
            await _fetch(driver, _END_HOLDS, ended)
    return bool(dead)


async def _fetch(driver: Driver, statement: str, claims: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    parameters = {"names": [each[0] for each in claims], "ids": [each[1] for each in claims]}
    return await (await driver.execute(statement.encode(), parameters)).fetchall()
