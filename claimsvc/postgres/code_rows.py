"""Rows of codes: finding one by what a user typed, the columns that are read, and the values made of them."""

from collections.abc import Mapping
from typing import Any

from claimsvc.domain import AlreadyRedeemed, Code, CodeExpired, CodeNotClaimed, CodeState, CodeTerms, NotYourClaim
from claimsvc.postgres.database import Database

# The exact code; without one, those that differ from it by case alone, two at most. Codes have ASCII letters only, and
# the index is in byte order.
_FIND = """
WITH exact AS (
    SELECT coupon_name, code FROM code_names WHERE code = %(code)s
)
SELECT coupon_name, code FROM exact
UNION ALL (
    SELECT coupon_name, code FROM code_names
    WHERE lower(code) = lower(%(code)s::text COLLATE "C") AND NOT EXISTS (SELECT FROM exact)
    LIMIT 2
)
"""

CODE_TERMS = """
CASE WHEN num_nonnulls(code.own_type, code.benefit) > 0 THEN jsonb_build_object(
    'type', coalesce(code.own_type, (SELECT type FROM campaigns WHERE coupon_name = code.coupon_name)),
    'benefit', coalesce(code.benefit, (SELECT benefit FROM campaigns WHERE coupon_name = code.coupon_name))
) END
"""
"""The `terms_of` the row `code`: what it and its coupon say together, or NULL if it has no terms of its own."""

REDEMPTIONS = """
LEFT JOIN LATERAL (
    SELECT greatest(count(*), (code.redeemed_at IS NOT NULL)::int) AS redeemed_count,
        coalesce(max(redemption.redeemed_at), code.redeemed_at) AS last_at,
        coalesce(bool_or(redemption.id = %(redemption_id)s::uuid), false) AS is_this
    FROM redemptions AS redemption
    WHERE redemption.coupon_name = claim.coupon_name AND redemption.claim_id = claim.id
) AS done ON true
"""
"""Joins the redemptions of `claim`, whose code is `code`; `is_this`, if `redemption_id` is among them.

An instance of an older version records a redemption only in `codes`."""

CODE_COLUMNS = f"""
    code.code, code.coupon_name, code.claim_id::text, code.expires_at, code.voided_at IS NOT NULL AS is_voided,
    coalesce(code.expires_at <= clock_timestamp(), false) AS has_expired,
    claim.held_until IS NOT NULL AS is_held, claim.user_id,
    coalesce(code.own_type, campaign.type) AS type, coalesce(code.benefit, campaign.benefit) AS benefit,
    coalesce(code.uses, campaign.uses, 1) AS uses, done.redeemed_count, done.last_at, done.is_this,
    true AS has_codes, NULL::text[] AS lost_types
FROM codes AS code
LEFT JOIN user_claims AS claim ON claim.coupon_name = code.coupon_name AND claim.id = code.claim_id
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = code.coupon_name
{REDEMPTIONS}
"""
"""The columns and tables of `code_of`."""

READ_CODE = f"""
SELECT {CODE_COLUMNS} WHERE code.coupon_name = %(coupon_name)s AND code.code = %(code)s
"""
"""Reads one code; `redemption_id` may be NULL."""


async def find_code(database: Database, code: str) -> tuple[str, str] | None:
    """Find a code: exactly as it is given, or the only one that differs from it by case alone.

    Args:
        database: where the statement runs.
        code: as the user has it.

    Returns:
        Its coupon and the code as it is stored; None if there is none, or several differ by case alone.
    """
    rows = await database.fetch(_FIND, {"code": code})
    return (rows[0][0], rows[0][1]) if len(rows) == 1 else None


def code_of(row: Mapping[str, Any]) -> Code:
    """Return the code of a row."""
    return Code(
        row["code"],
        row["coupon_name"],
        _state(row),
        row["claim_id"],
        row["expires_at"],
        row["last_at"],
        row["uses"],
        row["redeemed_count"],
        row["user_id"],
        row["type"],
        row["benefit"],
    )


def terms_of(terms: Mapping[str, Any] | None) -> CodeTerms | None:
    """Return the terms of a column `CODE_TERMS`."""
    return None if terms is None else CodeTerms(terms["type"], terms["benefit"])


def refusal_of(
    row: Mapping[str, Any], user_id: str | None
) -> NotYourClaim | AlreadyRedeemed | CodeExpired | CodeNotClaimed | None:
    """Return why the code of a row cannot be redeemed; None if it can.

    Args:
        row: the code's row.
        user_id: whose code it must be; None for anybody's.
    """
    # Before the code's state, which is not the business of whoever does not have it.
    if user_id is not None and row["user_id"] not in (None, user_id):
        return NotYourClaim()
    state = _state(row)
    if state is CodeState.REDEEMED:
        return AlreadyRedeemed()
    if row["has_expired"]:
        return CodeExpired()
    return None if state is CodeState.CLAIMED else CodeNotClaimed()


def _state(row: Mapping[str, Any]) -> CodeState:
    if row["redeemed_count"] and row["redeemed_count"] >= row["uses"]:
        return CodeState.REDEEMED
    if row["is_voided"]:
        return CodeState.VOIDED
    if row["has_expired"]:
        return CodeState.EXPIRED
    if row["claim_id"] is None:
        return CodeState.FREE
    return CodeState.HELD if row["is_held"] else CodeState.CLAIMED
