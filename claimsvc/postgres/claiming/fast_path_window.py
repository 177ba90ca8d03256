"""Computes until when only the stock decides a coupon's claims, so that they can take the fast path."""

# Any of these requires the full path. A coupon whose only term is its end is plain until then. A coupon with a held
# claim is not plain, because holds expire and are continued. Nor is one whose users may have units in slots other than
# the first, now or earlier: the fast path inserts into the first slot, and relies on its unique index.
_REASONS = """
    campaign.paused OR campaign.archived_at IS NOT NULL OR campaign.starts_at > clock_timestamp()
    OR campaign.per_user_limit > 1 OR campaign.had_higher_limit
    OR campaign.rules IS NOT NULL OR campaign.allow_version IS NOT NULL OR campaign.deny_version IS NOT NULL
    OR campaign.has_codes
"""

UPDATE_PLAIN_UNTIL = f"""
UPDATE coupons SET plain_until = computed.plain_until
FROM (
    SELECT coupon.name, CASE
        WHEN ({_REASONS}) OR EXISTS (
            SELECT FROM user_claims
            WHERE coupon_name = coupon.name AND held_until IS NOT NULL AND state = 'active'
        ) THEN timestamptz 'epoch' ELSE campaign.ends_at
    END AS plain_until
    FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
    WHERE coupon.name = ANY (%(coupon_names)s)
) AS computed
WHERE coupons.name = computed.name AND coupons.plain_until IS DISTINCT FROM computed.plain_until
"""  # noqa: S608 - of constants
"""Updates `coupons.plain_until`. Run it last in every transaction that changes a campaign or a hold, while the coupons'
rows are locked."""
