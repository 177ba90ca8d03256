"""Reading and counting codes. How claims take them is in `claiming/code_pool.py`."""

from claimsvc.domain import Code, CodeCounts, UnknownCoupon
from claimsvc.postgres.claiming.code_pool import SETTLE_CODES
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.code_additions import CodeAdditions
from claimsvc.postgres.code_changes import COUNTED_TYPES, take_marks
from claimsvc.postgres.code_rows import CODE_COLUMNS, READ_CODE, code_of, find_code
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.coupon_rows import coupon_exists
from claimsvc.postgres.redemptions import CodeRedemptions

_PAGE = f"""
SELECT {CODE_COLUMNS}
WHERE code.coupon_name = %(coupon_name)s AND code.code > %(after)s
ORDER BY code.code
LIMIT %(limit)s
"""
# A code's own type counts, or else that of its coupon. Each coupon's codes are counted where they are read: passing a
# million rows on costs more than reading them.
_COUNTS = """
    SELECT count(*) AS uploaded, count(claim_id) FILTER (WHERE voided_at IS NULL) AS claimed,
        count(redeemed_at) AS redeemed, count(voided_at) AS voided
    FROM codes
"""
_COUNT = f"""
SELECT coalesce(sum(uploaded), 0)::bigint, coalesce(sum(claimed), 0)::bigint, coalesce(sum(redeemed), 0)::bigint,
    coalesce(sum(voided), 0)::bigint
FROM (
    SELECT untyped.*
    FROM campaigns CROSS JOIN LATERAL (
        {_COUNTS} WHERE coupon_name = campaigns.coupon_name AND own_type IS NULL
    ) AS untyped
    WHERE has_codes AND type IS NOT DISTINCT FROM %(type)s
    UNION ALL
    {_COUNTS} WHERE own_type = %(type)s
) AS counted
"""  # noqa: S608 - of constants
_TYPES = f"SELECT DISTINCT unnest({COUNTED_TYPES}) FROM campaigns WHERE has_codes"  # noqa: S608 - of constants
_DUE = f"""
SELECT DISTINCT campaigns.coupon_name, {COUNTED_TYPES}
FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
WHERE has_codes AND claim_id IS NULL AND voided_at IS NULL AND expires_at <= now()
LIMIT 100
"""  # noqa: S608 - of constants


class PostgresCodes(CodeAdditions, CodeRedemptions):
    """`ports.Codes` on PostgreSQL.

    Args:
        database: where statements run.
        reads: where codes are listed and counted; `database` if None.
        changes: told of each change.
    """

    async def code(self, code: str) -> Code | None:
        found = await find_code(self._database, code)
        if found is None:
            return None
        wanted = {"coupon_name": found[0], "code": found[1], "redemption_id": None}
        rows = await self._database.fetch_dicts(READ_CODE, wanted)
        return code_of(rows[0]) if rows else None

    async def of_coupon(self, coupon_name: str, *, after: str, limit: int) -> list[Code] | UnknownCoupon:
        wanted = {"coupon_name": coupon_name, "after": after, "limit": limit, "redemption_id": None}
        rows = await self._reads.fetch_dicts(_PAGE, wanted)
        if not rows and not await coupon_exists(self._reads, coupon_name):
            return UnknownCoupon()
        return [code_of(row) for row in rows]

    async def count(self, coupon_type: str | None) -> CodeCounts:
        [row] = await self._reads.fetch(_COUNT, {"type": coupon_type})
        return CodeCounts(*row)

    async def types(self) -> list[str | None]:
        return [coupon_type for (coupon_type,) in await self._reads.fetch(_TYPES, {})]

    async def changed_elsewhere(self) -> set[str | None]:
        return await take_marks(self._database)

    async def expire_due(self) -> int:
        due = await self._database.fetch(_DUE, {})
        if not due:
            return 0
        coupons = {"coupon_names": sorted(coupon_name for coupon_name, _ in due)}

        async def work(driver: Driver, in_doubt: bool) -> int:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                settled = await driver.execute(SETTLE_CODES, coupons)
                await self._changes.mark(driver, coupons["coupon_names"])
                await driver.execute("COMMIT", prepare=False)
            [(count, _)] = await settled.fetchall()
            return int(count)

        count = await self._database.run_transaction(work)
        self._changes.committed({coupon_type for _, types in due for coupon_type in types})
        return count
