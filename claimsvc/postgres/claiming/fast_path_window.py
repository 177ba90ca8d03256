"""Until when nothing but the stock decides a coupon's claims, so that they take the quick way."""

# A coupon whose only rule is its end is plain until then. One that somebody holds a unit of is not: holds expire, and
# their holders ask again. Nor is one whose users may have units in other slots than the first, or could once.
_REASONS = """
    campaign.paused OR campaign.archived_at IS NOT NULL OR campaign.starts_at > clock_timestamp()
    OR campaign.per_user_limit > 1 OR campaign.had_higher_limit
    OR campaign.rules IS NOT NULL OR campaign.allow_version IS NOT NULL OR campaign.deny_version IS NOT NULL
    OR campaign.has_codes
"""

RECKON_PLAINNESS = f"""
UPDATE coupons SET plain_until = reckoned.plain_until
FROM (
    SELECT coupon.name, CASE
        WHEN ({_REASONS}) OR EXISTS (
            SELECT FROM user_claims
            WHERE coupon_name = coupon.name AND held_until IS NOT NULL AND state = 'active'
        ) THEN timestamptz 'epoch' ELSE campaign.ends_at
    END AS plain_until
    FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
    WHERE coupon.name = ANY (%(coupon_names)s)
) AS reckoned
WHERE coupons.name = reckoned.name AND coupons.plain_until IS DISTINCT FROM reckoned.plain_until
"""  # noqa: S608 - of constants
"""To be run last in whatever changes a campaign or a hold, while the coupons' rows are locked."""
