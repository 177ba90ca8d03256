"""A PostgreSQL whose sessions end, that stops, hangs, and has no room for more: row 15 of the fault table."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.trial import Trial
from tests.faults.windows import CLAIM_WITHIN_SECONDS, expect_answers_within, expect_recovery, now, window
from tests.support.injectors import postgres as faults
from tests.support.load import Plan
from tests.support.load_tickets import QUEUE, QueuePlan

_T = TypeVar("_T")

STRATEGIES = ("redlock", "row_lock", "counter")

_PLENTY = 10_000_000
_SCARCE = 800


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """What blocks on entering and on leaving."""
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def coupons(trial: Trial) -> list[str]:
    """One of each strategy with plenty, the first of which is the lock's; and one of each that sells out."""
    return [
        *[await trial.cluster.create_coupon(_PLENTY, strategy) for strategy in STRATEGIES],
        *[await trial.cluster.create_coupon(_SCARCE, strategy) for strategy in STRATEGIES],
    ]


def plan(names: Sequence[str]) -> Plan:
    """A load that most scenarios here take."""
    return Plan(names, [3] * 3 + [1] * 3, clients=32, timeout_seconds=CLAIM_WITHIN_SECONDS + 3)


class _Hurt(Anywhere):
    """PostgreSQL is hurt under load, and all is well afterwards."""

    fault = "15"
    name: str
    quick = False
    durable = False
    instances = 2
    settings: Mapping[str, str] = {}

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(
            self,
            rng,
            instances=self.instances,
            settings=self.settings,
            own_servers=self.durable,
            durable=self.durable,
        ) as trial:
            names = await coupons(trial)
            joins = QueuePlan([await trial.cluster.create_coupon(_PLENTY, queue=QUEUE)])
            async with trial.load(replace(plan(names), queues=joins, waits=0.1)):
                await trial.acknowledged(200)
                begun = now()
                await self.hurt(trial, names)
                healed = now()
                trial.healed()
                await trial.recovered()
            seen = window(trial, begun)
            expect_answers_within(trial, seen, CLAIM_WITHIN_SECONDS, "while PostgreSQL was hurt")
            trial.notes.append(f"slowest {seen.slowest_seconds():.2f} s; {seen.count(503)} x 503")
            expect_recovery(trial, healed, names[0])
        return trial.row

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        """Do it, under load, and undo it; say what has fired."""
        raise NotImplementedError


@scenario
class BackendTerminated(_Hurt):
    name, quick = "backends are terminated in their transactions", True

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        with await asyncio.to_thread(faults.connect, trial.cluster.database_url) as session:
            while trial.times_fired < (200 if trial.full else 20):
                trial.fired(await asyncio.to_thread(faults.terminate_transactions, session))
                await asyncio.sleep(trial.rng.uniform(0, 0.05))


@scenario
class StoppedImmediately(_Hurt):
    name, quick, durable = "PostgreSQL is stopped at once and started again", True, True

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        for _ in range(4 if trial.full else 1):
            await asyncio.to_thread(faults.stop_immediately, trial.cluster.postgres)
            trial.fired()
            await asyncio.sleep(trial.rng.uniform(0.2, 1.5))
            await asyncio.to_thread(trial.cluster.postgres.start)
            await trial.acknowledged(100)


@scenario
class Hung(_Hurt):
    name, durable = "PostgreSQL hangs", True

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        trial.cluster.postgres.pause()
        try:
            # The machine itself shows that it stands still: nothing is decided any more.
            begun = now()
            await asyncio.sleep(6.0)
            trial.fired(not window(trial, begun + int(1e9)).count(201))
        finally:
            trial.cluster.postgres.resume()


@scenario
class ConnectionsExhausted(_Hurt):
    name, durable = "others take every connection", True

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        refused = "too many clients already"
        with await asyncio.to_thread(faults.connect, trial.cluster.database_url) as session:
            async with in_thread(faults.every_connection_taken(trial.cluster.database_url)) as held:
                before = faults.said(trial.cluster.folder, refused)
                await asyncio.to_thread(faults.terminate_sessions, session)
                await asyncio.sleep(3.0)
                trial.expect(held() > 150, f"only {held()} connections were taken")
                trial.fired(faults.said(trial.cluster.folder, refused) - before)


@scenario
class PoolExhausted(_Hurt):
    name = "slow statements take every connection of the pool"
    settings = {"CLAIMSVC_DATABASE_POOL_SIZE": "2", "CLAIMSVC_DATABASE_POOL_TIMEOUT_SECONDS": "0.5"}  # noqa: RUF012

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        async with in_thread(faults.rows_held(trial.cluster.database_url, names[:2])):
            for _ in range(10):
                await asyncio.sleep(0.3)
                looks = await trial.cluster.look()
                borrowed = [value for gauge, value in looks.gauges.items() if "in_use" in gauge]
                trial.fired(sum(value >= 2 for value in borrowed))


@scenario
class Deadlocked(_Hurt):
    name, quick, instances = "another session locks the rows in the opposite order", True, 1

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        url = trial.cluster.database_url
        # Of one strategy, so that claims of both are admitted in one transaction.
        first, second = sorted([await trial.cluster.create_coupon(_PLENTY, "row_lock") for _ in range(2)])
        async with trial.load(Plan([first, second], clients=16, timeout_seconds=CLAIM_WITHIN_SECONDS + 3)):
            await trial.acknowledged(50)
            before = await asyncio.to_thread(faults.deadlocks, url)
            wanted, counted = 4 if trial.full else 1, 0
            # Who waits for the second row may not hold the first: then there was none, and it takes another try.
            for _ in range(20):
                await asyncio.to_thread(faults.deadlock, url, first, second)
                counted = await asyncio.to_thread(faults.deadlocks, url) - before
                if counted >= wanted:
                    break
                await asyncio.sleep(0.5)  # PostgreSQL counts about once a second
            trial.fired(counted)


class _RowHeld(_Hurt):
    """Another session holds the rows for longer than anybody waits."""

    told: str

    async def hurt(self, trial: Trial, names: Sequence[str]) -> None:
        before = faults.said(trial.cluster.folder, self.told)
        async with in_thread(faults.rows_held(trial.cluster.database_url, names)):
            await asyncio.sleep(4.0)
        trial.fired(faults.said(trial.cluster.folder, self.told) - before)


@scenario
class LockTimeout(_RowHeld):
    name, quick = "another session holds the row locks", True
    told = "canceling statement due to lock timeout"


@scenario
class StatementTimeout(_RowHeld):
    name = "statements take longer than they may"
    told = "canceling statement due to statement timeout"
    settings = {  # noqa: RUF012
        "CLAIMSVC_DATABASE_STATEMENT_TIMEOUT_SECONDS": "1",
        "CLAIMSVC_DATABASE_LOCK_TIMEOUT_SECONDS": "10",
    }
