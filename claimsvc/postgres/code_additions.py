"""Adding uploaded and generated codes to coupons."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar
from weakref import WeakValueDictionary

import psycopg

from claimsvc.domain import (
    AuditEntry,
    CodeExpired,
    CodesAdded,
    IdempotencyKey,
    KeyReused,
    NewCode,
    PatternTooSmall,
    RefusedRow,
    Replayed,
    RowsRefused,
    UnknownCoupon,
)
from claimsvc.domain.admission import replay
from claimsvc.domain.codes import Intake
from claimsvc.postgres.code_batch import ROWS_AT_ONCE, CodeBatch
from claimsvc.postgres.code_changes import CodeChanges
from claimsvc.postgres.code_generation import Generation
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.coupon_rows import coupon_exists
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, found, look_up
from claimsvc.postgres.transactions import RestartTransactionError

# The limit of a transaction that adds codes. Each of its statements, and each pause, has the usual limit.
_ADDING_TIMEOUT_SECONDS = 60.0

_A = TypeVar("_A")
_T = TypeVar("_T", UnknownCoupon, RowsRefused)


class CodeAdditions:
    """The methods of `ports.Codes` that add codes.

    Args:
        database: where statements run.
        reads: where codes are counted; `database` if None.
        changes: told of each change.
    """

    def __init__(self, database: Database, *, reads: Database | None = None, changes: CodeChanges) -> None:
        self._database = database
        self._reads = reads or database
        self._changes = changes
        # Who generates codes of a coupon: others of this process wait here, without a connection.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        uses: int | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        repeated = await self._stored_answer(idempotency_key)
        if repeated is not None:
            return repeated
        if not await coupon_exists(self._database, coupon_name):
            return await self._conclude(idempotency_key, UnknownCoupon())
        intake = Intake()
        waiting: list[NewCode] = []
        async for chunk in rows:
            waiting += intake.sort(chunk)
            while not atomic and len(waiting) > ROWS_AT_ONCE:
                _, intake = await self._add(coupon_name, waiting[:ROWS_AT_ONCE], intake, entry, uses)
                del waiting[:ROWS_AT_ONCE]
        if atomic and intake.refused_count:
            return await self._conclude(idempotency_key, intake.refusal())
        try:
            answer, _ = await self._add(
                coupon_name, waiting, intake, entry, uses, atomic=atomic, idempotency_key=idempotency_key
            )
        except psycopg.errors.ForeignKeyViolation:  # the coupon was purged meanwhile
            return await self._conclude(idempotency_key, UnknownCoupon())
        return answer

    async def _add(
        self,
        coupon_name: str,
        rows: Sequence[NewCode],
        intake: Intake,
        entry: AuditEntry,
        uses: int | None,
        *,
        atomic: bool = False,
        idempotency_key: IdempotencyKey | None = None,
    ) -> tuple[CodesAdded | RowsRefused | Replayed | KeyReused, Intake]:
        """Add the rows that can be added, in one transaction; if `atomic`, all of them or none."""
        batch = CodeBatch(coupon_name, entry, None, uses)

        async def work(
            driver: Driver, in_doubt: bool
        ) -> tuple[CodesAdded | RowsRefused | Replayed | KeyReused, Intake]:
            await batch.begin(driver)
            stored = await look_up(driver, idempotency_key)
            taken = await batch.reserve(driver, rows)
            after = intake.without(rows, taken)
            if not (atomic and taken):
                await batch.insert(driver, [row for row in rows if row.code not in taken])
                await batch.finish(driver)
                await self._changes.mark(driver, [coupon_name])
                return await concluded(driver, idempotency_key, stored, after.result(), in_doubt), after
            await driver.execute("ROLLBACK", prepare=False)
            await driver.execute("BEGIN", prepare=False)
            return await concluded(
                driver, idempotency_key, await look_up(driver, idempotency_key), after.refusal(), in_doubt
            ), after

        answer = await self._run_adding(work)
        self._changes.committed(batch.counted)
        return answer

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        idempotency_key: IdempotencyKey | None = None,
        *,
        uses: int | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        repeated = await self._stored_answer(idempotency_key)
        if repeated is not None:
            return repeated
        if not await coupon_exists(self._database, coupon_name):
            return await self._conclude(idempotency_key, UnknownCoupon())
        batch = CodeBatch(coupon_name, entry, pattern, uses)
        generation = Generation(coupon_name, pattern, count, expires_at)

        async def work(
            driver: Driver, in_doubt: bool
        ) -> CodesAdded | PatternTooSmall | CodeExpired | Replayed | KeyReused:
            await batch.begin(driver)
            stored = await look_up(driver, idempotency_key)
            generated = await generation.run(driver, batch, in_doubt=in_doubt)
            if isinstance(generated, CodesAdded):
                await batch.finish(driver)
                await self._changes.mark(driver, [coupon_name])
                return await concluded(driver, idempotency_key, stored, generated, in_doubt)
            await driver.execute("ROLLBACK", prepare=False)
            await driver.execute("BEGIN", prepare=False)
            return await concluded(driver, idempotency_key, await look_up(driver, idempotency_key), generated, in_doubt)

        turn = self._turns.setdefault(coupon_name, asyncio.Lock())
        try:
            async with turn:
                answer = await self._run_adding(work)
        except psycopg.errors.ForeignKeyViolation:  # the coupon was purged meanwhile
            return await self._conclude(idempotency_key, UnknownCoupon())
        self._changes.committed(batch.counted)
        return answer

    async def _run_adding(self, work: Callable[[Driver, bool], Awaitable[_A]]) -> _A:
        """Run `work` in a transaction, and restart it if it deadlocks with another that adds the same codes."""

        async def attempt(driver: Driver, in_doubt: bool) -> _A:
            try:
                return await work(driver, in_doubt)
            except psycopg.errors.DeadlockDetected as error:
                raise RestartTransactionError from error

        return await self._database.run_transaction(attempt, timeout_seconds=_ADDING_TIMEOUT_SECONDS)

    async def _stored_answer(self, idempotency_key: IdempotencyKey | None) -> Replayed | KeyReused | None:
        """Return the answer stored under the request's key, before work in several transactions starts."""

        async def query(driver: Driver) -> Replayed | KeyReused | None:
            stored = (await found(await look_up(driver, idempotency_key))).values()
            return next((replay(each, idempotency_key, False) for each in stored if idempotency_key is not None), None)

        return None if idempotency_key is None else await self._database.read(query)

    async def _conclude(self, idempotency_key: IdempotencyKey | None, answer: _T) -> _T | Replayed | KeyReused:
        """Return an answer that changes nothing; with a key, store it."""
        if idempotency_key is None:
            return answer

        async def work(driver: Driver, in_doubt: bool) -> _T | Replayed | KeyReused:
            await driver.execute("BEGIN", prepare=False)
            return await concluded(driver, idempotency_key, await look_up(driver, idempotency_key), answer, in_doubt)

        return await self._database.run_transaction(work)
