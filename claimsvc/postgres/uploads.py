"""Codes that are added to a coupon in one transaction."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from claimsvc.domain import AuditEntry, NewCode, RowReason
from claimsvc.postgres.audit import INSERT_ENTRY, parameters_of
from claimsvc.postgres.claiming.fast_path import LOCK_COUPONS
from claimsvc.postgres.claiming.fast_path_window import RECKON_PLAINNESS
from claimsvc.postgres.connections import Driver

# So many rows are a matter of a tenth of a second.
ROWS_AT_ONCE = 5000

# PostgreSQL 17 also bounds transactions as a whole. Zero is no bound, and goes with the transaction.
_UNBOUND = """
SELECT set_config('transaction_timeout', '0', true) WHERE current_setting('server_version_num')::int >= 170000
"""
# In the order of the codes, so that two transactions never wait for each other. What this same upload has named before,
# in a transaction whose end was in doubt, it has named now.
_NAME = """
WITH given AS (
    SELECT code, expires_at FROM unnest(%(codes)s::text[], %(expiries)s::timestamptz[]) AS given (code, expires_at)
), named AS (
    INSERT INTO code_names AS old (code, coupon_name, upload_id)
    SELECT code, %(coupon_name)s, %(upload_id)s::uuid FROM given
    WHERE expires_at IS NULL OR expires_at > now()
    ORDER BY code COLLATE "C"
    ON CONFLICT (code) DO UPDATE SET upload_id = old.upload_id WHERE old.upload_id = excluded.upload_id
    RETURNING code
)
SELECT code, coalesce(expires_at <= now(), false) FROM given WHERE code NOT IN (SELECT code FROM named)
"""
_ADD = """
INSERT INTO codes (coupon_name, code, expires_at)
SELECT %(coupon_name)s, code, expires_at
FROM unnest(%(codes)s::text[], %(expiries)s::timestamptz[]) WITH ORDINALITY AS given (code, expires_at, place)
ORDER BY place
ON CONFLICT DO NOTHING
"""
# With its first codes a coupon's amount becomes what is claimed already, and them.
_GROW = """
UPDATE coupons SET
    amount = CASE WHEN had_codes THEN amount ELSE amount - remaining_amount END + %(units)s,
    remaining_amount = CASE WHEN had_codes THEN remaining_amount ELSE 0 END + %(units)s
FROM (
    SELECT EXISTS (SELECT FROM campaigns WHERE coupon_name = %(coupon_name)s AND has_codes) AS had_codes
) AS campaign
WHERE name = %(coupon_name)s
"""
# Only where all codes are of our making can a cancelled one be replaced by a new one.
_BE_A_POOL = """
INSERT INTO campaigns AS old (coupon_name, has_codes, code_pattern) VALUES (%(coupon_name)s, true, %(pattern)s)
ON CONFLICT (coupon_name) DO UPDATE SET has_codes = true,
    code_pattern = CASE WHEN NOT old.has_codes OR old.code_pattern IS NOT NULL THEN excluded.code_pattern END
RETURNING type
"""


class CodeBatch:
    """What is added to a coupon in one transaction. It may be begun again: it knows what it has added."""

    def __init__(self, coupon_name: str, entry: AuditEntry, pattern: str | None) -> None:
        self._coupon_name = coupon_name
        self._entry = entry
        self._pattern = pattern
        self._id = str(uuid4())
        self.type: str | None = None

    # Statement by statement, and not in a pipeline: the server then ends it if we are paused in between.

    async def begin(self, driver: Driver) -> None:
        await driver.execute("BEGIN", prepare=False)
        await driver.execute(_UNBOUND)

    async def name(self, driver: Driver, rows: Sequence[NewCode]) -> dict[str, RowReason]:
        """Make the codes of these rows ours. Returns those that are not, and why."""
        refused: dict[str, RowReason] = {}
        for parameters in self._in_parts(sorted(rows, key=lambda row: row.code)):
            for code, is_over in await (await driver.execute(_NAME, parameters)).fetchall():
                refused[code] = RowReason.EXPIRED if is_over else RowReason.EXISTS
        return refused

    async def add(self, driver: Driver, rows: Sequence[NewCode]) -> None:
        """Add codes that are ours, in the order of the rows. The coupon is locked at the end only."""
        units = 0
        for parameters in self._in_parts(rows):
            units += (await driver.execute(_ADD, parameters)).rowcount
        if units:
            coupon = {"coupon_name": self._coupon_name, "units": units, "pattern": self._pattern}
            coupons = {"coupon_names": [self._coupon_name]}
            entry = replace(self._entry, details={**self._entry.details, "codes": units})
            await driver.execute(LOCK_COUPONS, coupons)
            await driver.execute(_GROW, coupon)
            [(self.type,)] = await (await driver.execute(_BE_A_POOL, coupon)).fetchall()
            await driver.execute(RECKON_PLAINNESS, coupons)
            await driver.execute(INSERT_ENTRY, parameters_of(entry))

    def _in_parts(self, rows: Sequence[NewCode]) -> list[dict[str, Any]]:
        parts = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
        return [
            {
                "coupon_name": self._coupon_name,
                "upload_id": self._id,
                "codes": [row.code for row in part],
                "expiries": [row.expires_at for row in part],
            }
            for part in parts
        ]
