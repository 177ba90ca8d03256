"""Jobs of several instances at once, beside the claims of every strategy."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from claimsvc.domain import Campaign, Claimed, ClaimOptions, PurgeReport, SoldOut, StrategyName, UnknownCoupon
from claimsvc.errors import UnavailableError
from claimsvc.jobs import Jobs, Schedule
from claimsvc.ports import Lease, Lock
from claimsvc.postgres import ConnectionLimits, Repositories
from claimsvc.postgres.coupons import PostgresCoupons
from claimsvc.postgres.database import Database
from claimsvc.postgres.maintenance import PostgresMaintenance
from claimsvc.postgres.pool import open_pool
from claimsvc.redis.counters import RedisCounters
from claimsvc.redis.lock import open_redlocks
from claimsvc.redis.masters import open_masters
from tests.support.observed import Observed
from tests.support.storage import create_coupon
from tests.support.strategy_instances import STRATEGIES, Instance, open_instance
from tests.support.waiting import until

OFTEN = Schedule(sweep_seconds=0.02, reconcile_seconds=3600, purge_seconds=3600)
NOWHERE = ("redis://127.0.0.1:1",)
_LIMITS = ConnectionLimits(
    pool_size=2,
    pool_timeout_seconds=2.0,
    connect_timeout_seconds=2,
    statement_timeout_seconds=30.0,
    lock_timeout_seconds=30.0,
    idle_in_transaction_timeout_seconds=30.0,
)


@dataclass
class _Lease:
    coupon_names: Sequence[str]
    handed_over: Sequence[str] = ()

    def seconds_left(self) -> float:
        return 20.0

    def hand_to(self, instance: str) -> None: ...

    async def is_wanted(self) -> bool:
        return False


class Everybodys:
    """`ports.Lock` with as many holders as ask for it, as a Redlock has them after a long pause."""

    @asynccontextmanager
    async def hold_free(self, coupon_names: Sequence[str]) -> AsyncIterator[Lease]:
        yield _Lease(coupon_names)

    def hold(self, coupon_name: str, *, was_busy: bool = False) -> AbstractAsyncContextManager[Lease]:
        return self.hold_free([coupon_name])


@asynccontextmanager
async def open_jobs(
    database_url: str, redis_urls: tuple[str, ...], *, lock: Lock | None = None, purge_after_days: int = 9
) -> AsyncIterator[tuple[Jobs, Observed]]:
    observed = Observed()
    async with (
        open_pool(database_url, _LIMITS, observed) as pool,
        open_masters(redis_urls, timeout_seconds=1.0, pool_size=4, observer=observed) as masters,
        open_redlocks(masters.all, ttl_seconds=20.0, retries=3, retry_wait_seconds=0.5, observer=observed) as redlocks,
    ):
        jobs = Jobs(
            lock or redlocks.without_metrics(),
            PostgresCoupons(Database(pool, 4.0)),
            PostgresMaintenance(Database(pool, 40.0), observer=observed),
            RedisCounters(masters.all),
            observed,
            settle_seconds=0.01,
            drifted=lambda name, units: None,
            purge_after_days=purge_after_days,
        )
        yield jobs, observed
        assert observed.violations == 0
        assert (observed.attempts, observed.waits) == ({}, [])  # a job is no coupon


@pytest.fixture(params=STRATEGIES)
async def instances(
    request: pytest.FixtureRequest, database_url: str, redis_urls: tuple[str, ...]
) -> AsyncIterator[tuple[Instance, Instance]]:
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(open_instance(request.param, database_url, redis_urls)) for _ in range(2)
        ]
        yield here, there


async def administrate(database_url: str, statement: str) -> int:
    """Carry out a statement. Returns how many rows it was about."""
    url = database_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return (await connection.execute(statement.encode())).rowcount


async def remaining(storage: Repositories, name: str = "spring") -> int:
    """What remains; the units add up in the same snapshot (I2), and nobody has two (I3)."""
    detail = await storage.coupons.coupon(name, claimants=10_000)
    assert detail is not None
    assert detail.coupon.amount - detail.coupon.remaining_amount == len(detail.claimed_by)
    assert len(set(detail.claimed_by)) == len(detail.claimed_by)
    return detail.coupon.remaining_amount


async def test_holds_that_end_under_load_come_back_by_the_sweepers_of_two_instances(
    instances: tuple[Instance, Instance], database_url: str, redis_urls: tuple[str, ...]
) -> None:
    here, there = instances
    await create_coupon(here.storage, "spring", 5, here.strategy.name)
    users = (f"user-{number}" for number in itertools.count())
    held = 0
    ended = asyncio.Event()

    async def hold_and_forget(instance: Instance) -> None:
        nonlocal held
        while not ended.is_set():
            outcome = await instance.strategy.claim("spring", next(users), ClaimOptions(hold_seconds=1))
            assert isinstance(outcome, Claimed | SoldOut)
            held += isinstance(outcome, Claimed)
            await asyncio.sleep(0.01)

    async def watch() -> None:
        while not ended.is_set():
            assert 0 <= await remaining(here.storage) <= 5
            await asyncio.sleep(0.01)

    async with (
        open_jobs(database_url, redis_urls) as (first, first_told),
        open_jobs(database_url, redis_urls) as (second, second_told),
        first.running(OFTEN),
        second.running(OFTEN),
    ):
        async with asyncio.TaskGroup() as tasks:
            for work in (*(hold_and_forget(instance) for instance in (*instances, *instances)), watch()):
                tasks.create_task(work)
            await until(lambda: held >= 15, "each unit was held three times")
            ended.set()

        async def all_are_back() -> bool:
            return await remaining(there.storage) == 5

        def swept() -> int:
            return first_told.job_items["sweep"] + second_told.job_items["sweep"]

        await until(all_are_back, "nobody claims any more, and the units of all holds are back")
        before = swept()
        for _ in range(5):
            assert isinstance(
                await there.strategy.claim("spring", next(users), ClaimOptions(hold_seconds=3600)), Claimed
            )
        # All at once, or the claim of the last would end the hold of the first.
        await administrate(database_url, "UPDATE user_claims SET held_until = now() WHERE state = 'active'")
        await until(lambda: swept() >= before + 5, "the sweepers ended what nobody else has")
        await until(all_are_back, "their units are back")
        assert swept() <= held + 5
        assert (first_told.jobs + second_told.jobs)["sweep", "failed"] == 0
    sold = [await here.strategy.claim("spring", next(users)) for _ in range(6)]
    assert [type(outcome) for outcome in sold] == [Claimed] * 5 + [SoldOut]


async def test_a_pass_is_one_instances_and_the_other_s_passes_over_it(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with (
        open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance,
        open_jobs(database_url, redis_urls) as (first, first_told),
        open_jobs(database_url, redis_urls) as (second, second_told),
    ):
        await create_coupon(instance.storage, "spring", 1, StrategyName.ROW_LOCK)
        assert isinstance(await instance.strategy.claim("spring", "ada", ClaimOptions(hold_seconds=60)), Claimed)
        await administrate(database_url, "UPDATE user_claims SET held_until = now()")
        url = database_url.replace("+psycopg", "")
        async with await psycopg.AsyncConnection.connect(url) as blocker:
            await blocker.execute("SELECT FROM coupons FOR UPDATE")
            sweeping = asyncio.create_task(first.sweep())

            async def waits() -> bool:
                waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                return await administrate(database_url, waiting) > 0

            await until(waits, "the first is at it, and waits for the coupon")
            assert await second.sweep() is None
            assert await second.purge() is not None  # another job has another lock
            await blocker.rollback()
        assert await sweeping == 1
        assert await second.sweep() == 0
        assert await remaining(instance.storage) == 1
        assert first_told.jobs == {("sweep", "done"): 1}
        assert second_told.jobs == {("sweep", "elsewhere"): 1, ("purge", "done"): 1, ("sweep", "done"): 1}


async def test_two_that_are_both_taken_for_the_holder_do_nothing_twice(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with (
        open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance,
        open_jobs(database_url, redis_urls, lock=Everybodys()) as (first, _),
        open_jobs(database_url, redis_urls, lock=Everybodys()) as (second, _),
    ):
        for name in ("spring", "summer"):
            await create_coupon(instance.storage, name, 60, StrategyName.ROW_LOCK)
            claims = (instance.strategy.claim(name, f"user-{i}", ClaimOptions(hold_seconds=60)) for i in range(40))
            assert {type(outcome) for outcome in await asyncio.gather(*claims)} == {Claimed}
        await administrate(database_url, "UPDATE user_claims SET held_until = now()")
        swept = await asyncio.gather(first.sweep(), second.sweep())
        assert sum(units or 0 for units in swept) == 80
        assert [await remaining(instance.storage, name) for name in ("spring", "summer")] == [60, 60]
        await administrate(
            database_url,
            "INSERT INTO campaigns (coupon_name, archived_at) SELECT name, now() - interval '10 days' FROM coupons",
        )
        assert await first.purgeable() == PurgeReport(coupons=2, claims=80)
        reports = await asyncio.gather(first.purge(), second.purge())
        total = PurgeReport()
        for report in reports:
            assert report is not None
            total.add(report)
        assert total == PurgeReport(coupons=2, claims=80)


async def test_a_coupon_that_was_purged_can_be_made_anew_and_is_sold_exactly(
    instances: tuple[Instance, Instance], database_url: str, redis_urls: tuple[str, ...]
) -> None:
    here, there = instances
    strategy = here.strategy.name
    await create_coupon(here.storage, "spring", 3, strategy)
    for number, instance in enumerate((here, there, here)):
        assert isinstance(await instance.strategy.claim("spring", f"user-{number}"), Claimed)
    for instance in instances:
        assert isinstance(await instance.strategy.claim("spring", "late"), SoldOut)
    async with open_jobs(database_url, redis_urls) as (jobs, _):
        assert await jobs.purge() == PurgeReport()  # it has not ended
        await administrate(
            database_url, "INSERT INTO campaigns (coupon_name, ends_at) VALUES ('spring', now() - interval '10 days')"
        )
        assert await jobs.purge() == PurgeReport(coupons=1, claims=3)
    for instance in instances:
        assert isinstance(await instance.strategy.claim("spring", "late"), UnknownCoupon)
    await create_coupon(there.storage, "spring", 2, strategy)
    again = [await instances[number % 2].strategy.claim("spring", f"user-{number}") for number in range(4)]
    assert [type(outcome) for outcome in again] == [Claimed, Claimed, SoldOut, SoldOut]
    assert await remaining(here.storage) == 0


async def test_without_the_masters_no_job_runs_and_whoever_claims_still_gets_what_is_over(database_url: str) -> None:
    async with (
        open_instance(StrategyName.ROW_LOCK, database_url, NOWHERE) as instance,
        open_jobs(database_url, NOWHERE) as (jobs, told),
    ):
        await create_coupon(instance.storage, "spring", 1, StrategyName.ROW_LOCK, Campaign())
        assert isinstance(await instance.strategy.claim("spring", "ada", ClaimOptions(hold_seconds=60)), Claimed)
        assert isinstance(await instance.strategy.claim("spring", "bob"), SoldOut)
        await administrate(database_url, "UPDATE user_claims SET held_until = now()")
        for job in (jobs.sweep, jobs.purge, jobs.reconcile):
            with pytest.raises(UnavailableError):
                await job()
        assert told.jobs == {("sweep", "failed"): 1, ("purge", "failed"): 1, ("reconcile", "failed"): 1}
        assert isinstance(await instance.strategy.claim("spring", "bob"), Claimed)
        assert await remaining(instance.storage) == 0
