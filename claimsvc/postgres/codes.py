"""Adding, redeeming, reading and counting codes. How claims take them is in `claiming/code_pool.py`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import psycopg

from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    CodeState,
    IdempotencyKey,
    KeyReused,
    NewCode,
    PatternTooSmall,
    Redeemed,
    RefusedRow,
    Replayed,
    RowReason,
    RowsRefused,
    UnknownCode,
    UnknownCoupon,
)
from claimsvc.domain.admission import replay
from claimsvc.domain.codes import FEWEST_POSSIBILITIES_PER_CODE, Intake, make_codes, possibilities
from claimsvc.postgres.audit import insert_entry, parameters_of
from claimsvc.postgres.claiming.code_pool import SETTLE_CODES, CodesChanged
from claimsvc.postgres.claiming.fast_path import LOCK_COUPONS
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, found, look_up
from claimsvc.postgres.transactions import RestartTransactionError
from claimsvc.postgres.uploads import ROWS_AT_ONCE, CodeBatch

# The limit of a transaction that adds codes. Each of its statements, and each pause, has the usual limit.
_ADDING_TIMEOUT_SECONDS = 60.0
# How often generated codes that exist already are replaced. Collisions are rare: enough even if few codes are unused.
_MOST_ROUNDS = 20

_A = TypeVar("_A")
_T = TypeVar("_T", UnknownCoupon, RowsRefused, PatternTooSmall)

_COUPON_EXISTS = "SELECT 1 FROM coupons WHERE name = %(coupon_name)s"
_REDEEM = f"""
WITH redeemed AS (
    UPDATE codes SET redeemed_at = clock_timestamp(), redemption_id = %(redemption_id)s::uuid
    FROM user_claims AS claim
    WHERE codes.coupon_name = (SELECT coupon_name FROM code_names WHERE code = %(code)s) AND codes.code = %(code)s
        AND redeemed_at IS NULL AND voided_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
        AND claim.coupon_name = codes.coupon_name AND claim.id = codes.claim_id
        AND claim.state = 'active' AND claim.held_until IS NULL
    RETURNING 1
)
{insert_entry("redeemed")}
"""  # noqa: S608 - of constants
_READ = """
SELECT code.code, code.coupon_name, code.claim_id::text, code.expires_at, code.redeemed_at,
    code.redemption_id::text, code.voided_at IS NOT NULL, code.expires_at <= clock_timestamp(),
    claim.held_until IS NOT NULL AND claim.state = 'active', campaign.type
FROM code_names AS name
JOIN codes AS code ON code.coupon_name = name.coupon_name AND code.code = name.code
LEFT JOIN user_claims AS claim ON claim.id = code.claim_id AND claim.coupon_name = code.coupon_name
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = code.coupon_name
WHERE name.code = %(code)s
"""
_COUNT = """
SELECT count(*), count(claim_id) FILTER (WHERE voided_at IS NULL), count(redeemed_at), count(voided_at)
FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
WHERE has_codes AND type IS NOT DISTINCT FROM %(type)s
"""
_TYPES = "SELECT DISTINCT type FROM campaigns WHERE has_codes"
_DUE = """
SELECT DISTINCT campaigns.coupon_name, type FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
WHERE has_codes AND claim_id IS NULL AND voided_at IS NULL AND expires_at <= now()
LIMIT 100
"""


class PostgresCodes:
    """`ports.Codes` on PostgreSQL.

    Args:
        database: where statements run.
        changed: see `CodesChanged`.
    """

    def __init__(self, database: Database, *, changed: CodesChanged) -> None:
        self._database = database
        self._changed = changed

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        once: IdempotencyKey | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        repeated = await self._stored_answer(once)
        if repeated is not None:
            return repeated
        if not await self._database.fetch(_COUPON_EXISTS, {"coupon_name": coupon_name}):
            return await self._conclude(once, UnknownCoupon())
        intake = Intake()
        waiting: list[NewCode] = []
        async for chunk in rows:
            waiting += intake.sort(chunk)
            while not atomic and len(waiting) > ROWS_AT_ONCE:
                _, intake = await self._add(coupon_name, waiting[:ROWS_AT_ONCE], intake, entry)
                del waiting[:ROWS_AT_ONCE]
        if atomic and intake.refused_count:
            return await self._conclude(once, intake.refusal())
        try:
            answer, _ = await self._add(coupon_name, waiting, intake, entry, atomic=atomic, once=once)
        except psycopg.errors.ForeignKeyViolation:  # the coupon was purged meanwhile
            return await self._conclude(once, UnknownCoupon())
        return answer

    async def _add(
        self,
        coupon_name: str,
        rows: Sequence[NewCode],
        intake: Intake,
        entry: AuditEntry,
        *,
        atomic: bool = False,
        once: IdempotencyKey | None = None,
    ) -> tuple[CodesAdded | RowsRefused | Replayed | KeyReused, Intake]:
        """Add the rows that can be added, in one transaction; if `atomic`, all of them or none."""
        batch = CodeBatch(coupon_name, entry, None)

        async def work(
            driver: Driver, in_doubt: bool
        ) -> tuple[CodesAdded | RowsRefused | Replayed | KeyReused, Intake]:
            await batch.begin(driver)
            stored = await look_up(driver, once)
            taken = await batch.reserve(driver, rows)
            after = intake.without(rows, taken)
            if not (atomic and taken):
                await batch.add(driver, [row for row in rows if row.code not in taken])
                return await concluded(driver, once, stored, after.result(), in_doubt), after
            await driver.execute("ROLLBACK", prepare=False)
            await driver.execute("BEGIN", prepare=False)
            return await concluded(driver, once, await look_up(driver, once), after.refusal(), in_doubt), after

        answer = await self._run_adding(work)
        self._changed([batch.type])
        return answer

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        once: IdempotencyKey | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        if not await self._database.fetch(_COUPON_EXISTS, {"coupon_name": coupon_name}):
            return await self._conclude(once, UnknownCoupon())
        if possibilities(pattern) < count * FEWEST_POSSIBILITIES_PER_CODE:
            return await self._conclude(once, PatternTooSmall())
        made = await asyncio.to_thread(make_codes, pattern, count)
        batch = CodeBatch(coupon_name, entry, pattern)
        # The replacements of codes that existed already. If the transaction runs again, it must add the same codes.
        replacements: dict[str, str] = {}

        def one_more() -> str:
            return make_codes(pattern, 1)[0]

        async def work(
            driver: Driver, in_doubt: bool
        ) -> CodesAdded | PatternTooSmall | CodeExpired | Replayed | KeyReused:
            await batch.begin(driver)
            stored = await look_up(driver, once)
            codes = {code: NewCode(row, code, expires_at) for row, code in enumerate(made, 1)}
            wanted = list(codes.values())
            for _ in range(_MOST_ROUNDS):
                taken = await batch.reserve(driver, wanted)
                if RowReason.EXPIRED in taken.values():
                    break
                if not taken:
                    await batch.add(driver, list(codes.values()))
                    return await concluded(driver, once, stored, CodesAdded(count), in_doubt)
                wanted = []
                for code in taken:
                    if code not in replacements:
                        replacements[code] = next(other for other in iter(one_more, None) if other not in codes)
                    wanted.append(replace(codes.pop(code), code=replacements[code]))
                    codes[replacements[code]] = wanted[-1]
            await driver.execute("ROLLBACK", prepare=False)
            await driver.execute("BEGIN", prepare=False)
            refusal = CodeExpired() if RowReason.EXPIRED in taken.values() else PatternTooSmall()
            return await concluded(driver, once, await look_up(driver, once), refusal, in_doubt)

        try:
            answer = await self._run_adding(work)
        except psycopg.errors.ForeignKeyViolation:  # the coupon was purged meanwhile
            return await self._conclude(once, UnknownCoupon())
        self._changed([batch.type])
        return answer

    async def _run_adding(self, work: Callable[[Driver, bool], Awaitable[_A]]) -> _A:
        """Run `work` in a transaction, and restart it if it deadlocks with another that adds the same codes."""

        async def attempt(driver: Driver, in_doubt: bool) -> _A:
            try:
                return await work(driver, in_doubt)
            except psycopg.errors.DeadlockDetected as error:
                raise RestartTransactionError from error

        return await self._database.run_transaction(attempt, timeout_seconds=_ADDING_TIMEOUT_SECONDS)

    async def _stored_answer(self, once: IdempotencyKey | None) -> Replayed | KeyReused | None:
        """Return the answer stored under the request's key, before work in several transactions starts."""

        async def query(driver: Driver) -> Replayed | KeyReused | None:
            stored = (await found(await look_up(driver, once))).values()
            return next((replay(each, once, False) for each in stored if once is not None), None)

        return None if once is None else await self._database.read(query)

    async def _conclude(self, once: IdempotencyKey | None, answer: _T) -> _T | Replayed | KeyReused:
        """Return an answer that changes nothing; with a key, store it."""
        if once is None:
            return answer

        async def work(driver: Driver, in_doubt: bool) -> _T | Replayed | KeyReused:
            await driver.execute("BEGIN", prepare=False)
            return await concluded(driver, once, await look_up(driver, once), answer, in_doubt)

        return await self._database.run_transaction(work)

    async def redeem(
        self, code: str, entry: AuditEntry, once: IdempotencyKey | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
        parameters = {**parameters_of(entry), "code": code, "redemption_id": str(uuid4())}
        types: set[str | None] = set()

        async def work(
            driver: Driver, in_doubt: bool
        ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                stored = await look_up(driver, once)
                await driver.execute(_REDEEM, parameters)
                read = await driver.execute(_READ, parameters)
                if once is None:
                    await driver.execute("COMMIT", prepare=False)
            row = await read.fetchone()
            answer = _redeemed(row, parameters["redemption_id"])
            if row is not None and isinstance(answer, Redeemed):
                types.add(row[-1])
            return answer if once is None else await concluded(driver, once, stored, answer, in_doubt)

        answer = await self._database.run_transaction(work)
        self._changed(types)
        return answer

    async def code(self, code: str) -> Code | None:
        rows = await self._database.fetch(_READ, {"code": code})
        return _code(rows[0]) if rows else None

    async def count(self, coupon_type: str | None) -> CodeCounts:
        [row] = await self._database.fetch(_COUNT, {"type": coupon_type})
        return CodeCounts(*row)

    async def types(self) -> list[str | None]:
        return [coupon_type for (coupon_type,) in await self._database.fetch(_TYPES, {})]

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
                await driver.execute("COMMIT", prepare=False)
            [(count, _)] = await settled.fetchall()
            return int(count)

        count = await self._database.run_transaction(work)
        self._changed({coupon_type for _, coupon_type in due})
        return count


def _redeemed(
    row: tuple[Any, ...] | None, redemption_id: str
) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode:
    """Return the outcome of a redemption, from the row that `_READ` found after it."""
    if row is None:
        return UnknownCode()
    redeemed_by, has_expired = row[5], row[7]
    if redeemed_by is not None:
        return Redeemed(_code(row)) if redeemed_by == redemption_id else AlreadyRedeemed()
    return CodeExpired() if has_expired else CodeNotClaimed()


def _code(row: tuple[Any, ...]) -> Code:
    code, coupon_name, claim_id, expires_at, redeemed_at, _, is_voided, _, is_held, _ = row
    if redeemed_at is not None:
        state = CodeState.REDEEMED
    elif is_voided:
        state = CodeState.VOIDED
    elif claim_id is None:
        state = CodeState.FREE
    else:
        state = CodeState.HELD if is_held else CodeState.CLAIMED
    return Code(code, coupon_name, state, claim_id, expires_at, redeemed_at)
