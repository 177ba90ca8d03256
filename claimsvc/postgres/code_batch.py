"""Adding codes to a coupon in one transaction."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any
from uuid import uuid4

from claimsvc.domain import AuditEntry, NewCode, RowReason
from claimsvc.postgres.audit import INSERT_ENTRY, parameters_of
from claimsvc.postgres.claiming.fast_path import LOCK_COUPONS
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.connections import Driver

# About 100 ms each.
ROWS_AT_ONCE = 5000
_CODE = attrgetter("code")

# Lifts the limit on transactions of PostgreSQL 17 (see `connections`) for this transaction.
_LIFT_TIMEOUT = """
SELECT set_config('transaction_timeout', '0', true) WHERE current_setting('server_version_num')::int >= 170000
"""
# Ordered by code to prevent deadlocks. Codes that this batch inserted in an earlier transaction, whose commit is in
# doubt, count as inserted now.
_RESERVE = """
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
INSERT INTO codes (coupon_name, code, expires_at, uses)
SELECT %(coupon_name)s, code, expires_at, %(uses)s
FROM unnest(%(codes)s::text[], %(expiries)s::timestamptz[]) WITH ORDINALITY AS given (code, expires_at, place)
ORDER BY place
ON CONFLICT DO NOTHING
"""
# A coupon's first codes replace its unclaimed units.
_GROW = """
UPDATE coupons SET
    amount = CASE WHEN had_codes THEN amount ELSE amount - remaining_amount END + %(units)s,
    remaining_amount = CASE WHEN had_codes THEN remaining_amount ELSE 0 END + %(units)s
FROM (
    SELECT EXISTS (SELECT FROM campaigns WHERE coupon_name = %(coupon_name)s AND has_codes) AS had_codes
) AS campaign
WHERE name = %(coupon_name)s
"""
# Keeps the pattern only if all codes were generated: then a cancelled code can be replaced by a new one.
_ENABLE_CODES = """
INSERT INTO campaigns AS old (coupon_name, has_codes, code_pattern) VALUES (%(coupon_name)s, true, %(pattern)s)
ON CONFLICT (coupon_name) DO UPDATE SET has_codes = true,
    code_pattern = CASE WHEN NOT old.has_codes OR old.code_pattern IS NOT NULL THEN excluded.code_pattern END
RETURNING type
"""


class CodeBatch:
    """The codes that one transaction adds to a coupon. The transaction may run again: the batch recognizes its codes.

    Args:
        coupon_name: the coupon.
        entry: written to the audit log, with the number of codes.
        pattern: by which the codes were generated; None if they were uploaded.
        uses: how often each may be redeemed; None if as often as the coupon says.
    """

    def __init__(self, coupon_name: str, entry: AuditEntry, pattern: str | None, uses: int | None) -> None:
        self._coupon_name = coupon_name
        self._uses = uses
        self._entry = entry
        self._pattern = pattern
        self._units = 0
        self.id = str(uuid4())
        self.type: str | None = None

    # Single statements instead of a pipeline, so that the server ends the transaction if this process is paused: its
    # limit on idle transactions does not apply inside a pipeline.

    async def begin(self, driver: Driver) -> None:
        """Begin the transaction, which may take longer than others."""
        self._units = 0
        await driver.execute("BEGIN", prepare=False)
        await driver.execute(_LIFT_TIMEOUT)

    async def reserve(self, driver: Driver, rows: Sequence[NewCode]) -> dict[str, RowReason]:
        """Reserve codes for this batch. Returns the codes that are refused, and why."""
        refused: dict[str, RowReason] = {}
        in_order = await _in_order(rows)
        while part := list(islice(in_order, ROWS_AT_ONCE)):
            parameters = self._parameters(part)
            for code, has_expired in await (await driver.execute(_RESERVE, parameters)).fetchall():
                refused[code] = RowReason.EXPIRED if has_expired else RowReason.EXISTS
        return refused

    async def insert(self, driver: Driver, rows: Sequence[NewCode]) -> int:
        """Insert reserved codes in the order of the rows, and return how many were inserted."""
        inserted = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            parameters = self._parameters(rows[start : start + ROWS_AT_ONCE])
            inserted += (await driver.execute(_ADD, parameters)).rowcount
        self._units += inserted
        return inserted

    async def finish(self, driver: Driver) -> None:
        """Add what was inserted to the coupon. Its row is locked only now."""
        if self._units:
            coupon = {"coupon_name": self._coupon_name, "units": self._units, "pattern": self._pattern}
            coupons = {"coupon_names": [self._coupon_name]}
            entry = replace(self._entry, details={**self._entry.details, "codes": self._units})
            await driver.execute(LOCK_COUPONS, coupons)
            await driver.execute(_GROW, coupon)
            [(self.type,)] = await (await driver.execute(_ENABLE_CODES, coupon)).fetchall()
            await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
            await driver.execute(INSERT_ENTRY, parameters_of(entry))

    def _parameters(self, rows: Sequence[NewCode]) -> dict[str, Any]:
        return {
            "coupon_name": self._coupon_name,
            "upload_id": self.id,
            "uses": self._uses,
            "codes": [row.code for row in rows],
            "expiries": [row.expires_at for row in rows],
        }


async def _in_order(rows: Sequence[NewCode]) -> Iterator[NewCode]:
    """The rows in the order of their codes, sorted a few at a time: sorting all of a file stops every other request."""
    runs: list[list[NewCode]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        runs.append(sorted(rows[start : start + ROWS_AT_ONCE], key=_CODE))
        await asyncio.sleep(0)
    return merge(*runs, key=_CODE)
