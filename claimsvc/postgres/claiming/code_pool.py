"""How claims take codes and leave them again: statements for whoever holds the coupons' rows."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from claimsvc.postgres.audit import insert_entry

CodesChanged = Callable[[Collection[str | None]], None]
"""Told of types after a change to their codes was committed."""

SETTLE_CODES = """
WITH over AS (
    UPDATE codes SET voided_at = clock_timestamp()
    FROM unnest(%(coupon_names)s::text[]) AS asked (coupon_name)
    CROSS JOIN LATERAL (
        SELECT code FROM codes
        WHERE coupon_name = asked.coupon_name AND claim_id IS NULL AND voided_at IS NULL AND expires_at <= now()
        ORDER BY expires_at
        LIMIT 1000
    ) AS due
    WHERE codes.coupon_name = asked.coupon_name AND codes.code = due.code
    RETURNING codes.coupon_name
), fewer AS (
    UPDATE coupons SET amount = amount - over.units, remaining_amount = remaining_amount - over.units
    FROM (SELECT coupon_name, count(*) AS units FROM over GROUP BY coupon_name) AS over
    WHERE name = over.coupon_name
    RETURNING over.units
)
SELECT count(*), 1 / (count(*) = (SELECT coalesce(sum(units), 0) FROM fewer))::int FROM over
"""
"""Takes codes that nobody has, and that can be redeemed no more, out of their coupons' stock. Of many at once only
some, so that claims do not wait; those that are left are not given either. Returns how many."""

FREE_CODES = """
SELECT asked.coupon_name, free.code
FROM unnest(%(names)s::text[], %(counts)s::int[]) AS asked (coupon_name, units)
CROSS JOIN LATERAL (
    SELECT code FROM codes
    WHERE coupon_name = asked.coupon_name AND claim_id IS NULL AND voided_at IS NULL
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY place
    LIMIT asked.units
) AS free
"""
"""The next codes of each coupon, as many as there are claims of it."""

# Whether a code is free is asked in words that no index is for, or all free ones might be looked through for it.
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
    -- Who cancels has seen it, so it is nobody's now. Whoever redeems it at the same time is first, or too late.
    UPDATE codes SET voided_at = clock_timestamp()
    WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s AND redeemed_at IS NULL AND voided_at IS NULL
        AND (SELECT is_shown FROM claim)
    RETURNING expires_at
), freed AS (
    UPDATE codes SET claim_id = NULL
    WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s AND NOT (SELECT is_shown FROM claim)
    RETURNING 1
), cancelled AS (
    UPDATE user_claims SET state = 'cancelled', ended_at = clock_timestamp()
    WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'active' AND (
        EXISTS (SELECT FROM voided) OR EXISTS (SELECT FROM freed)
        OR NOT EXISTS (SELECT FROM codes WHERE coupon_name = %(coupon_name)s AND claim_id = %(id)s)
    )
    RETURNING coupon_name
), named AS (
    INSERT INTO code_names (code, coupon_name)
    SELECT code, %(coupon_name)s FROM unnest(%(spare_codes)s::text[]) AS spare (code)
    WHERE EXISTS (SELECT FROM voided) AND NOT EXISTS (SELECT FROM code_names WHERE code_names.code = spare.code)
    LIMIT 1
    ON CONFLICT DO NOTHING
    RETURNING code
), replaced AS (
    INSERT INTO codes (coupon_name, code, expires_at)
    SELECT %(coupon_name)s, named.code, voided.expires_at FROM named CROSS JOIN voided
    RETURNING 1
), returned AS (
    UPDATE coupons SET amount = amount - lost.units, remaining_amount = remaining_amount + 1 - lost.units
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
"""Gives a claim back. A unit comes back for a row that changes its state just here, and for no other: asked for again,
nothing happens; nor if its code was redeemed. Where there are codes, a unit is one: that of a code that was shown comes
back as the first of `spare_codes` that is new, and not at all if there is none, nor if the claim never had one."""


def given_codes(given: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """The parameters of `GIVE_CODES`, from each claim's id, its coupon, and its code."""
    return {
        "ids": [claim_id for claim_id, _, _ in given],
        "names": [coupon_name for _, coupon_name, _ in given],
        "codes": [code for _, _, code in given],
        "units": len(given),
    }
