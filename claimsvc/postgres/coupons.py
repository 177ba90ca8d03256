"""Reading coupons: details, listings, stock, and which can be claimed."""

from collections.abc import Sequence
from dataclasses import replace

from claimsvc.domain import Coupon, CouponDetail, CouponFilter, ListedCoupon
from claimsvc.postgres.coupon_lists import list_coupons
from claimsvc.postgres.coupon_rows import CAMPAIGN_COLUMNS, COUPON_COLUMNS, campaign_of, coupon_of
from claimsvc.postgres.database import Database

_COUPON_DETAIL = f"""
SELECT {COUPON_COLUMNS},
    ARRAY(
        SELECT user_id FROM user_claims
        WHERE coupon_name = coupon.name AND state = 'active'
        ORDER BY claimed_at, id
        LIMIT %(claimants)s
    ) AS claimed_by,
    {CAMPAIGN_COLUMNS}
FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
WHERE coupon.name = %(name)s
"""  # noqa: S608 - of constants
_STOCK = f"""
SELECT {COUPON_COLUMNS}, campaign.queue IS NOT NULL AS has_queue
FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
WHERE coupon.name = ANY (%(names)s)
"""  # noqa: S608 - of constants

# `why_not` has a row only if no candidate is open. If the coupon `after` was purged meanwhile, the first page is found.
# The statement reads all coupons of the type, or all without one, once a second for each page. It has no index: while
# there are few coupons, the planner would use that index where it should use the one on names.
_CLAIMABLE = """
WITH candidates AS (
    SELECT coupon.name, coupon.created_at, coupon.remaining_amount > 0 AND coalesce(campaign.ends_at > now(), true)
            AS has_units, coalesce(campaign.paused, false) AS is_paused,
        CASE WHEN campaign.starts_at > now() THEN campaign.starts_at END AS will_start_at
    FROM coupons AS coupon {join} campaigns AS campaign ON campaign.coupon_name = coupon.name
    WHERE campaign.archived_at IS NULL AND {of_type}
), claimable AS (
    SELECT name, created_at FROM candidates WHERE has_units AND NOT is_paused AND will_start_at IS NULL
), page AS (
    SELECT name, created_at FROM claimable
    WHERE (created_at, name) > (
        coalesce((SELECT created_at FROM coupons WHERE name = %(after)s::text), '-infinity'),
        coalesce(%(after)s::text, '')
    )
    ORDER BY created_at, name LIMIT %(limit)s
), why_not AS (
    SELECT name, created_at FROM candidates
    WHERE NOT EXISTS (SELECT FROM claimable) AND %(after)s::text IS NULL
    ORDER BY CASE WHEN has_units AND NOT is_paused THEN will_start_at END NULLS LAST, created_at DESC, name LIMIT 1
)
SELECT name FROM (SELECT * FROM page UNION ALL SELECT * FROM why_not) AS found ORDER BY created_at, name
"""
_CLAIMABLE_WITHOUT_TYPE = _CLAIMABLE.format(join="LEFT JOIN", of_type="campaign.type IS NULL")
_CLAIMABLE_OF_TYPE = _CLAIMABLE.format(join="JOIN", of_type="campaign.type = %(type)s")


class PostgresCoupons:
    """`ports.Coupons` on PostgreSQL.

    Args:
        database: where the statements of claims run.
        reads: where details and lists are read; `database` if None.
    """

    def __init__(self, database: Database, *, reads: Database | None = None) -> None:
        self._database = database
        self._reads = reads or database

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        rows = await self._reads.fetch_dicts(_COUPON_DETAIL, {"name": name, "claimants": claimants})
        if not rows:
            return None
        [row] = rows
        return CouponDetail(coupon_of(row), tuple(row["claimed_by"]), campaign_of(row))

    async def listed(self, matching: CouponFilter, *, after: str | None, limit: int) -> list[ListedCoupon]:
        return await list_coupons(self._reads, matching, after=after, limit=limit)

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        rows = await self._database.fetch_dicts(_STOCK, {"names": list(names)})
        return [replace(coupon_of(row), has_queue=row["has_queue"]) for row in rows]

    async def claimable_coupons(self, coupon_type: str | None, *, after: str | None, limit: int) -> list[str]:
        statement = _CLAIMABLE_WITHOUT_TYPE if coupon_type is None else _CLAIMABLE_OF_TYPE
        wanted = {"type": coupon_type, "after": after, "limit": limit}
        return [name for (name,) in await self._database.fetch(statement, wanted)]
