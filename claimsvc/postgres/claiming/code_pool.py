"""Statements that give codes to claims and take them back. The caller has locked the coupons' rows."""

from collections.abc import Sequence
from typing import Any

from claimsvc.postgres.audit import insert_entry
from claimsvc.postgres.code_rows import CODE_TERMS

SETTLE_CODES = """
WITH expired AS (
    UPDATE codes SET voided_at = clock_timestamp()
    FROM unnest(%(coupon_names)s::text[]) AS requested (coupon_name)
    CROSS JOIN LATERAL (
        SELECT code FROM codes
        WHERE coupon_name = requested.coupon_name AND claim_id IS NULL AND voided_at IS NULL AND expires_at <= now()
        ORDER BY expires_at
        LIMIT 1000
    ) AS due
    WHERE codes.coupon_name = requested.coupon_name AND codes.code = due.code
    RETURNING codes.coupon_name
), decremented AS (
    UPDATE coupons SET amount = amount - removed.units, remaining_amount = remaining_amount - removed.units
    FROM (SELECT coupon_name, count(*) AS units FROM expired GROUP BY coupon_name) AS removed
    WHERE name = removed.coupon_name
    RETURNING removed.units
)
SELECT count(*), 1 / (count(*) = (SELECT coalesce(sum(units), 0) FROM decremented))::int FROM expired
"""
"""Removes expired, unclaimed codes from the stock of their coupons, and returns how many.

It removes 1000 per coupon at most, so that claims do not wait; expired codes that remain are not given to claims."""


def next_codes(coupon: str, units: str, *, now: str, after: str = "") -> str:
    """Return a query: the next free codes of a coupon in their order, `units` at most, with their `CODE_TERMS`.

    Args:
        coupon, units, now: expressions.
        after: an expression: a place up to which no code is free. The index has an entry for each code that was given
            until it is vacuumed, and the search would pass all of them.
    """
    return f"""
    SELECT code.code, code.place, code.ctid AS at, {CODE_TERMS} AS terms FROM codes AS code
    WHERE coupon_name = {coupon} AND claim_id IS NULL AND voided_at IS NULL
        AND (expires_at IS NULL OR expires_at > {now}){f" AND place > {after}" if after else ""}
    ORDER BY place
    LIMIT {units}
"""  # noqa: S608 - of constants


FREE_CODES = f"""
SELECT requested.coupon_name, free.code, free.terms
FROM unnest(%(names)s::text[], %(counts)s::int[]) AS requested (coupon_name, units)
CROSS JOIN LATERAL ({next_codes("requested.coupon_name", "requested.units", now="now()")}) AS free
"""  # noqa: S608 - of constants
"""The next free codes of each coupon, as many as there are attempts to claim it, with their `CODE_TERMS`."""

# num_nonnulls matches no partial index, so the planner uses the primary key. With `claim_id IS NULL AND voided_at IS
# NULL` it might scan the index of all free codes instead.
GIVE_CODES = """
WITH given AS (
    UPDATE codes SET claim_id = claim.id
    FROM unnest(%(names)s::text[], %(codes)s::text[], %(ids)s::uuid[]) AS claim (coupon_name, code, id)
    WHERE codes.coupon_name = claim.coupon_name AND codes.code = claim.code AND num_nonnulls(claim_id, voided_at) = 0
    RETURNING 1
)
SELECT 1 / (count(*) = %(units)s)::int FROM given
"""

CANCEL = f"""
WITH claim AS (
    SELECT held_until IS NULL AS is_shown FROM user_claims
    WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'active'
), voided AS (
    -- Its user has seen the code, so it must not be given again. The row lock orders this and a concurrent redemption.
    UPDATE codes SET voided_at = clock_timestamp()
    WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s AND redeemed_at IS NULL AND voided_at IS NULL
        AND (SELECT is_shown FROM claim)
    RETURNING expires_at, uses
), freed AS (
    UPDATE codes SET claim_id = NULL
    WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s AND NOT (SELECT is_shown FROM claim)
    RETURNING 1
), cancelled AS (
    UPDATE user_claims SET state = 'cancelled', ended_at = clock_timestamp()
    WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'active' AND (
        EXISTS (SELECT FROM voided) OR EXISTS (SELECT FROM freed)
        OR NOT EXISTS (SELECT FROM codes WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s)
    ) AND NOT EXISTS (SELECT FROM redemptions WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s)
    RETURNING coupon_name
), named AS (
    INSERT INTO code_names (code, coupon_name)
    SELECT code, %(coupon_name)s FROM unnest(%(spare_codes)s::text[]) AS spare (code)
    WHERE EXISTS (SELECT FROM voided WHERE expires_at IS NULL OR expires_at > now())
        AND NOT EXISTS (SELECT FROM code_names WHERE code_names.code = spare.code)
    LIMIT 1
    ON CONFLICT DO NOTHING
    RETURNING code
), replaced AS (
    INSERT INTO codes (coupon_name, code, expires_at, uses)
    SELECT %(coupon_name)s, named.code, voided.expires_at, voided.uses FROM named CROSS JOIN voided
    RETURNING 1
), returned AS (
    UPDATE coupons SET amount = amount - lost.units, remaining_amount = remaining_amount + 1 - lost.units,
        ended_count = coalesce(ended_count, 0) + 1
    FROM cancelled
    CROSS JOIN (
        SELECT CASE
            WHEN EXISTS (SELECT FROM campaigns WHERE coupon_name = %(coupon_name)s AND has_codes)
            THEN 1 - (SELECT count(*) FROM freed) - (SELECT count(*) FROM replaced) ELSE 0
        END AS units
    ) AS lost
    WHERE name = cancelled.coupon_name
    RETURNING name
), audited AS (
    {insert_entry("cancelled")}
)
SELECT 1 / (count(*) = (SELECT count(*) FROM returned))::int FROM cancelled
"""  # noqa: S608 - of constants
"""Cancels a claim and returns its unit to stock.

The unit is returned only for a row whose state this statement changes, so repeating it has no effect, and neither has
cancelling a claim that was redeemed. If the coupon has codes, each unit is a code: a code that was not shown is
free again; one that was shown is replaced by the first unused one of `spare_codes`, unless it has expired. Without a
replacement, or if the claim had no code, the coupon's amount decreases by one."""


def given_codes(given: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Return the parameters of `GIVE_CODES`, from each claim's id, coupon and code."""
    return {
        "ids": [claim_id for claim_id, _, _ in given],
        "names": [coupon_name for _, coupon_name, _ in given],
        "codes": [code for _, _, code in given],
        "units": len(given),
    }
