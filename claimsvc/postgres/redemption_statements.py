"""The statements of `redemptions`."""

from dataclasses import dataclass

from claimsvc.postgres.audit import insert_entry
from claimsvc.postgres.code_rows import CODE_TERMS, READ_CODE, REDEMPTIONS


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements that redeem what is given by a code, or by a claim's id.

    Args:
        lock_code: orders this and other redemptions of the claim, and its cancellation.
        adopt: adds the row of a redemption that an instance of an older version recorded.
        redeem: records the redemption `redemption_id`, if the claim may be redeemed.
        last: the last redemption.
        take_back: takes the redemption `redemption_id` back.
        read: the result.
    """

    lock_code: str
    adopt: str
    redeem: str
    last: str
    take_back: str
    read: str


def _statements(is_code: str, claim_id: str, read: str) -> Statements:
    """Return the statements.

    Args:
        is_code: whether a row of `codes` is the code.
        claim_id: the claim's id.
        read: see `Statements`.
    """
    return Statements(
        f"SELECT FROM codes WHERE {is_code} FOR NO KEY UPDATE",
        f"""
INSERT INTO redemptions (coupon_name, claim_id, number, id, redeemed_at)
SELECT coupon_name, claim_id, 1, redemption_id, redeemed_at FROM codes
WHERE {is_code} AND redeemed_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM redemptions AS known
    WHERE known.coupon_name = codes.coupon_name AND known.claim_id = codes.claim_id
)
""",  # noqa: S608
        f"""
WITH target AS (
    SELECT claim.id AS claim_id, claim.coupon_name, coalesce(code.uses, campaign.uses, 1) AS uses
    FROM user_claims AS claim
    LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
    LEFT JOIN campaigns AS campaign ON campaign.coupon_name = claim.coupon_name
    WHERE claim.coupon_name = %(coupon_name)s AND claim.id = {claim_id}
        AND claim.state = 'active' AND claim.held_until IS NULL AND code.voided_at IS NULL
        AND (code.expires_at IS NULL OR code.expires_at > clock_timestamp())
        AND (%(user_id)s::text IS NULL OR claim.user_id = %(user_id)s::text)
), redeemed AS (
    INSERT INTO redemptions (coupon_name, claim_id, number, id, redeemed_at)
    SELECT target.coupon_name, target.claim_id, done.last + 1, %(redemption_id)s::uuid, clock_timestamp()
    FROM target CROSS JOIN LATERAL (
        -- A redemption that was taken back may leave a gap.
        SELECT count(*) AS times, coalesce(max(number), 0) AS last,
            coalesce(bool_or(id = %(redemption_id)s::uuid), false) AS is_this
        FROM redemptions WHERE coupon_name = target.coupon_name AND claim_id = target.claim_id
    ) AS done
    WHERE done.times < target.uses AND NOT done.is_this
    RETURNING coupon_name, claim_id, id, redeemed_at
), first AS (
    UPDATE codes SET redeemed_at = redeemed.redeemed_at, redemption_id = redeemed.id
    FROM redeemed
    WHERE codes.coupon_name = redeemed.coupon_name AND codes.claim_id = redeemed.claim_id AND codes.redeemed_at IS NULL
)
{insert_entry("redeemed")}
""",  # noqa: S608
        f"""
SELECT id::text FROM redemptions WHERE coupon_name = %(coupon_name)s AND claim_id = {claim_id}
ORDER BY number DESC LIMIT 1
""",  # noqa: S608
        f"""
WITH gone AS (
    DELETE FROM redemptions
    WHERE coupon_name = %(coupon_name)s AND claim_id = {claim_id} AND id = %(redemption_id)s::uuid
    RETURNING coupon_name, claim_id, id
), again AS (
    UPDATE codes SET redeemed_at = first.redeemed_at, redemption_id = first.id
    FROM gone LEFT JOIN LATERAL (
        SELECT id, redeemed_at FROM redemptions
        WHERE coupon_name = gone.coupon_name AND claim_id = gone.claim_id AND id <> gone.id
        ORDER BY number LIMIT 1
    ) AS first ON true
    WHERE codes.coupon_name = gone.coupon_name AND codes.claim_id = gone.claim_id
)
{insert_entry("gone")}
""",  # noqa: S608
        read,
    )


# `lost_types` are those of which a code may be that an expired hold has just given back.
_READ_CLAIM = f"""
SELECT claim.id::text, claim.coupon_name, claim.user_id, claim.state, claim.claimed_at, claim.held_until,
    claim.ended_at, code.code, {CODE_TERMS} AS terms,
    coalesce(code.expires_at <= clock_timestamp(), false) AS has_expired,
    coalesce(campaign.has_codes, false) AS has_codes, coalesce(code.own_type, campaign.type) AS type,
    CASE WHEN code.code IS NULL THEN campaign.code_types END AS lost_types,
    coalesce(code.uses, campaign.uses, 1) AS uses, done.redeemed_count, done.last_at, done.is_this
FROM user_claims AS claim
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = claim.coupon_name
{REDEMPTIONS}
WHERE claim.coupon_name = %(coupon_name)s AND claim.id = %(claim_id)s
"""  # noqa: S608 - of constants

OF_CODE = _statements(
    "coupon_name = %(coupon_name)s AND code = %(code)s",
    "(SELECT claim_id FROM codes WHERE coupon_name = %(coupon_name)s AND code = %(code)s)",
    READ_CODE,
)
"""Their parameters are `coupon_name`, `code`, `redemption_id`, `user_id`, and those of `audit.parameters_of`."""
OF_CLAIM = _statements(
    "coupon_name = %(coupon_name)s AND claim_id = %(claim_id)s::uuid", "%(claim_id)s::uuid", _READ_CLAIM
)
"""Their parameters are `coupon_name`, `claim_id`, and the rest of those of `OF_CODE`."""
