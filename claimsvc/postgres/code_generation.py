"""Generating codes for a coupon in one transaction."""

import asyncio
from datetime import datetime
from typing import Any

from claimsvc.domain import CodeExpired, CodesAdded, NewCode, PatternTooSmall, RowReason
from claimsvc.domain.code_generation import Draws, is_hard_to_guess, regular_expression
from claimsvc.errors import UnavailableError
from claimsvc.postgres.code_batch import ROWS_AT_ONCE, CodeBatch
from claimsvc.postgres.connections import Driver

# Codes are drawn and written in parts of this size, so that neither memory nor the pauses of the event loop grow with
# their number: about 10 ms each. Where most are used already, parts are larger.
_CODES_AT_ONCE = 1000
_TURN_PAUSE_SECONDS = 0.05
_TURN_TIMEOUT_SECONDS = 30.0

# Those who generate codes of a coupon do so one after another, so that each counts what the others have added. Held
# until the end of the transaction.
_TRY_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended(%(coupon_name)s, 20261130))"
_WAS_COMMITTED = """
SELECT EXISTS (SELECT FROM code_names WHERE code = %(code)s AND upload_id = %(upload_id)s::uuid)
"""
# Counting takes a second for each million codes, and the usual limit of a statement is for claims.
_COUNTING_TIMEOUT = "50s"
_LIMIT_STATEMENTS = """
SELECT current_setting('statement_timeout'), set_config('statement_timeout', %(timeout)s, true)
"""
# A guess at a voided code never succeeds.
_COUNT = """
SELECT count(*) FROM codes WHERE coupon_name = %(coupon_name)s AND voided_at IS NULL AND code ~ %(expression)s
"""
# The subquery keeps the planner at one index look-up per code.
_UNUSED = """
SELECT code FROM unnest(%(codes)s::text[]) AS drawn (code)
WHERE (SELECT true FROM code_names WHERE code_names.code = drawn.code LIMIT 1) IS NULL
"""


class Generation:
    """Adds generated codes to a coupon. The transaction may run again.

    Args:
        coupon_name: the coupon.
        pattern: see `GENERATION_PATTERN`.
        count: how many codes.
        expires_at: when they can no longer be redeemed; None if never.
    """

    def __init__(self, coupon_name: str, pattern: str, count: int, expires_at: datetime | None) -> None:
        self._coupon_name = coupon_name
        self._pattern = pattern
        self._count = count
        self._expires_at = expires_at
        # A code that was added, to recognize the transaction after a commit in doubt.
        self._token: str | None = None

    async def run(
        self, driver: Driver, batch: CodeBatch, *, in_doubt: bool
    ) -> CodesAdded | PatternTooSmall | CodeExpired:
        """Insert the codes, in the transaction that `batch` has begun. If they are refused, roll it back."""
        await self._wait_for_turn(driver)
        if in_doubt and await self._was_committed(driver, batch):
            return CodesAdded(self._count)
        coupon = {"coupon_name": self._coupon_name, "expression": regular_expression(self._pattern)}
        existing = await self._count_existing(driver, coupon)
        if not is_hard_to_guess(self._pattern, existing + self._count):
            return PatternTooSmall()
        draws = Draws(self._pattern, self._count)
        added = 0
        are_scarce = False
        while (missing := self._count - added) > 0:
            wanted = ROWS_AT_ONCE if are_scarce else min(missing, _CODES_AT_ONCE)
            drawn = await asyncio.to_thread(draws.draw, wanted)
            if not drawn:
                return PatternTooSmall()
            unused = {code for (code,) in await _rows(driver, _UNUSED, {"codes": drawn})}
            are_scarce = 2 * len(unused) < wanted
            # In the order in which they were drawn, which is random.
            codes = [code for code in drawn if code in unused][:missing]
            rows = [NewCode(row, code, self._expires_at) for row, code in enumerate(codes, added + 1)]
            taken = await batch.reserve(driver, rows)
            if RowReason.EXPIRED in taken.values():
                return CodeExpired()
            rows = [row for row in rows if row.code not in taken]
            added += await batch.insert(driver, rows)
            self._token = rows[0].code if rows else self._token
        return CodesAdded(added)

    async def _count_existing(self, driver: Driver, coupon: dict[str, Any]) -> int:
        """Count the coupon's codes of the pattern that a guess could hit."""
        [(usual, _)] = await _rows(driver, _LIMIT_STATEMENTS, {"timeout": _COUNTING_TIMEOUT})
        [(existing,)] = await _rows(driver, _COUNT, coupon)
        await _rows(driver, _LIMIT_STATEMENTS, {"timeout": usual})
        return int(existing)

    async def _wait_for_turn(self, driver: Driver) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + _TURN_TIMEOUT_SECONDS
        while await _rows(driver, _TRY_TURN, {"coupon_name": self._coupon_name}) != [(True,)]:
            if clock() >= until:
                raise UnavailableError("other codes of the coupon are being generated", dependency="postgresql")
            await asyncio.sleep(_TURN_PAUSE_SECONDS)

    async def _was_committed(self, driver: Driver, batch: CodeBatch) -> bool:
        """Whether an earlier run of the transaction was committed. It has ended, because it is this one's turn."""
        added = {"code": self._token, "upload_id": batch.id}
        return self._token is not None and await _rows(driver, _WAS_COMMITTED, added) == [(True,)]


async def _rows(driver: Driver, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    return await (await driver.execute(statement.encode(), parameters)).fetchall()
