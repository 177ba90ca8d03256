"""Adding codes to a coupon in one transaction."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any
from uuid import uuid4

from psycopg.types.json import Jsonb

from claimsvc.domain import MAX_CODE_TYPES, AuditEntry, NewCode, OpenTerms, RowReason
from claimsvc.postgres.audit import INSERT_ENTRY, parameters_of
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.claiming.waiting_list import serve_waiting_list
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.transactions import RestartTransactionError

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
INSERT INTO codes (coupon_name, code, expires_at, uses, own_type, benefit)
SELECT %(coupon_name)s, code, expires_at, %(uses)s, type, benefit
FROM unnest(%(codes)s::text[], %(expiries)s::timestamptz[], %(types)s::text[], %(benefits)s::jsonb[])
    WITH ORDINALITY AS given (code, expires_at, type, benefit, place)
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
INSERT INTO campaigns AS old (coupon_name, has_codes, code_pattern, code_types)
VALUES (%(coupon_name)s, true, %(pattern)s, %(new_types)s::text[])
ON CONFLICT (coupon_name) DO UPDATE SET has_codes = true,
    code_pattern = CASE WHEN NOT old.has_codes OR old.code_pattern IS NOT NULL THEN excluded.code_pattern END,
    code_types = old.code_types || excluded.code_types
RETURNING type
"""
_OPEN_TERMS = """
SELECT type IS NOT NULL, benefit IS NOT NULL, code_types FROM campaigns WHERE coupon_name = %(coupon_name)s
"""
_WAS_COMMITTED = """
SELECT EXISTS (SELECT FROM code_names WHERE code = %(code)s AND upload_id = %(upload_id)s::uuid)
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
        self._has_terms = False
        self._open = OpenTerms()
        self._refused: dict[str, RowReason] = {}
        self._types: set[str] = set()
        self._token: str | None = None
        self.id = str(uuid4())
        self.counted: set[str | None] = set()
        """The types under which the codes that were added are counted."""

    # Single statements instead of a pipeline, so that the server ends the transaction if this process is paused: its
    # limit on idle transactions does not apply inside a pipeline.

    async def begin(self, driver: Driver) -> None:
        """Begin the transaction, which may take longer than others."""
        self._units, self._types = 0, set()
        await driver.execute("BEGIN", prepare=False)
        await driver.execute(_LIFT_TIMEOUT)

    async def reserve(self, driver: Driver, rows: Sequence[NewCode]) -> dict[str, RowReason]:
        """Reserve codes for this batch. Returns the codes that are refused, and why."""
        refused = await self._refused_terms(driver, [row for row in rows if row.has_terms])
        in_order = await _in_order([row for row in rows if row.code not in refused] if refused else rows)
        while part := list(islice(in_order, ROWS_AT_ONCE)):
            parameters = self._parameters(part)
            for code, has_expired in await (await driver.execute(_RESERVE, parameters)).fetchall():
                refused[code] = RowReason.EXPIRED if has_expired else RowReason.EXISTS
        return refused

    async def insert(self, driver: Driver, rows: Sequence[NewCode]) -> int:
        """Insert reserved codes in the order of the rows, and return how many were inserted."""
        inserted = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            inserted += (await driver.execute(_ADD, self._parameters(part) | _terms(part))).rowcount
        self._units += inserted
        self._types.update(row.type for row in rows if row.type is not None)
        self._token = rows[0].code if rows else self._token
        return inserted

    async def finish(self, driver: Driver) -> None:
        """Add what was inserted to the coupon. Its row is locked only now.

        Raises:
            RestartTransactionError: its terms have changed meanwhile.
        """
        if self._units:
            coupon = {"coupon_name": self._coupon_name, "units": self._units, "pattern": self._pattern}
            coupons = {"coupon_names": [self._coupon_name]}
            entry = replace(self._entry, details={**self._entry.details, "codes": self._units})
            await driver.execute(LOCK_COUPONS, coupons)
            coupon |= {"new_types": await self._new_types(driver) if self._has_terms else None}
            await driver.execute(_GROW, coupon)
            [(coupon_type,)] = await (await driver.execute(_ENABLE_CODES, coupon)).fetchall()
            self.counted = {coupon_type, *self._types}
            await serve_waiting_list(driver, coupons["coupon_names"])
            await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
            await driver.execute(INSERT_ENTRY, parameters_of(entry))

    async def _refused_terms(self, driver: Driver, rows: Sequence[NewCode]) -> dict[str, RowReason]:
        """Return the codes whose type or benefit is refused, and why; after a lost commit, the same as before it."""
        self._has_terms = bool(rows)
        if rows and not await self._was_committed(driver):
            self._open = await self._read_open_terms(driver)
            self._refused = self._open.refused(rows)
        return dict(self._refused) if rows else {}

    async def _new_types(self, driver: Driver) -> list[str] | None:
        """Return the types that the coupon's codes have not had yet; None if there are none. Raises as `finish`."""
        now = await self._read_open_terms(driver)
        if not now.leaves_open_as(self._open) or len(now.code_types | self._types) > MAX_CODE_TYPES:
            raise RestartTransactionError
        return sorted(self._types - now.code_types) or None

    async def _read_open_terms(self, driver: Driver) -> OpenTerms:
        rows = await (await driver.execute(_OPEN_TERMS, {"coupon_name": self._coupon_name})).fetchall()
        if not rows:
            return OpenTerms()
        [(has_type, has_benefit, code_types)] = rows
        return OpenTerms(has_type, has_benefit, frozenset(code_types or ()))

    async def _was_committed(self, driver: Driver) -> bool:
        """Whether an earlier run of the transaction was committed."""
        if self._token is None:
            return False
        added = {"code": self._token, "upload_id": self.id}
        [(was_committed,)] = await (await driver.execute(_WAS_COMMITTED, added)).fetchall()
        return bool(was_committed)

    def _parameters(self, rows: Sequence[NewCode]) -> dict[str, Any]:
        return {
            "coupon_name": self._coupon_name,
            "upload_id": self.id,
            "uses": self._uses,
            "codes": [row.code for row in rows],
            "expiries": [row.expires_at for row in rows],
        }


def _terms(rows: Sequence[NewCode]) -> dict[str, Any]:
    """The parameters for types and benefits: NULL for all rows, if none has one, as is usual."""
    if not any(row.has_terms for row in rows):
        return {"types": None, "benefits": None}
    return {
        "types": [row.type for row in rows],
        "benefits": [None if row.benefit is None else Jsonb(dict(row.benefit)) for row in rows],
    }


async def _in_order(rows: Sequence[NewCode]) -> Iterator[NewCode]:
    """The rows in the order of their codes, sorted a few at a time: sorting all of a file stops every other request."""
    runs: list[list[NewCode]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        runs.append(sorted(rows[start : start + ROWS_AT_ONCE], key=_CODE))
        await asyncio.sleep(0)
    return merge(*runs, key=_CODE)
