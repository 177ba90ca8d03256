"""Slow reads: their own connections, shared out between clients, and the index for searches."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import EVERY_CLAIM_STATE, AuditFilter, CouponFilter, StrategyName
from claimsvc.errors import UnavailableError
from claimsvc.ports.clients import CLIENT
from claimsvc.postgres import Repositories, migrate
from claimsvc.postgres.connections import Borrowed, Driver, PoolTimedOutError
from claimsvc.postgres.coupon_lists import statement_of
from claimsvc.postgres.database import Database
from claimsvc.postgres.fair_source import FairSource
from claimsvc.postgres.pool import open_pool
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.storage import LIMITS, create_coupon, open_storage

_ANY = AuditFilter()


@asynccontextmanager
async def open_both(database_url: str, *, reads: int = 1, timeout_seconds: float = 10.0) -> AsyncIterator[Repositories]:
    """The repositories with one connection for claims, and some for reads."""
    one, some = replace(LIMITS, pool_size=1), replace(LIMITS, pool_size=reads)
    observed = Observed()
    async with (
        open_pool(database_url, one, observed) as pool,
        open_pool(database_url, some, observed, name="reads", is_for_reads=True) as read_pool,
    ):
        fair = FairSource(read_pool, size=reads, timeout_seconds=timeout_seconds)
        yield Repositories.on(Database(pool, 3.0), reads=Database(fair, 3.0), observer=observed)


async def test_no_slow_read_takes_the_connection_of_claims(database_url: str) -> None:
    """The only connection of claims is in use, and still everything that is slow is read."""
    async with open_both(database_url) as storage:
        await create_coupon(storage, "spring", 1, StrategyName.ROW_LOCK)

        async def holds_the_connection(driver: Driver, _: bool) -> None:
            found = await storage.coupons.listed(CouponFilter(search="ring"), after=None, limit=10)
            assert [each.coupon.name for each in found] == ["spring"]
            assert await storage.claims.claims_of_user("ada", states=EVERY_CLAIM_STATE, before=None, limit=10) == []
            assert await storage.coupons.coupon("spring", claimants=10) is not None
            assert await storage.claims.claims("spring", after=None, limit=10) == []
            assert await storage.codes.count(None) is not None
            assert await storage.codes.types() == []
            assert await storage.codes.of_coupon("spring", after="", limit=10) == []
            assert await storage.audit_log.entries(_ANY, after=None, limit=10) != []
            export = await storage.exports.claims("spring")
            assert [line async for line in cast("AsyncIterator[bytes]", export)]

        await storage.claims._database.run_transaction(holds_the_connection)


async def test_claims_go_on_while_every_connection_for_reads_is_in_use(database_url: str) -> None:
    async with open_both(database_url, timeout_seconds=0.05) as storage:
        await create_coupon(storage, "spring", 1, StrategyName.ROW_LOCK)

        async def holds_the_connection(driver: Driver) -> None:
            with pytest.raises(UnavailableError, match="every connection"):
                await storage.coupons.listed(CouponFilter(), after=None, limit=10)
            assert await storage.coupons.stock(["spring"])
            assert await storage.coupons.claimable_coupons(None, after=None, limit=10) == ["spring"]

        await storage.coupons._reads.read(holds_the_connection)


class _Endless:
    """A source whose connections are nothing; it counts how many are lent at once."""

    def __init__(self) -> None:
        self.lent = self.most = 0

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Borrowed]:
        self.lent += 1
        self.most = max(self.most, self.lent)
        try:
            yield cast("Borrowed", None)
        finally:
            self.lent -= 1


async def test_a_client_that_asks_a_hundred_times_delays_another_by_one_turn() -> None:
    fair = FairSource(_Endless(), size=1, timeout_seconds=10.0)
    served: list[str] = []

    async def ask(client: str) -> None:
        CLIENT.set(client)
        async with fair.borrow():
            served.append(client)
            await asyncio.sleep(0)

    many = [asyncio.create_task(ask("many")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(asyncio.create_task(ask("one")), *many)
    assert served.index("one") <= 3
    assert Counter(served) == {"many": 100, "one": 1}


async def test_while_clients_wait_a_connection_rests_for_a_multiple_of_its_use() -> None:
    """So reads leave most of the process's time to claims, and more of it when it is busy."""
    fair = FairSource(_Endless(), size=1, timeout_seconds=10.0, rest_factor=4.0)
    clock = asyncio.get_running_loop().time
    uses: list[tuple[float, float]] = []

    async def ask() -> None:
        async with fair.borrow():
            began_at = clock()
            await asyncio.sleep(0.02)
            uses.append((began_at, clock()))

    await asyncio.gather(*(ask() for _ in range(4)))
    for (began_at, ended_at), (next_at, _) in pairwise(uses):
        assert next_at - ended_at >= 4.0 * (ended_at - began_at) * 0.99
    # Nobody waited behind the last one, so it need not rest.
    async with asyncio.timeout(0.05), fair.borrow():
        pass


async def test_thousands_of_reads_that_time_out_at_once_cost_no_connection() -> None:
    fair = FairSource(_Endless(), size=1, timeout_seconds=0.05)

    async def ask() -> None:
        async with fair.borrow():
            pass

    async with fair.borrow():
        waiting = [asyncio.create_task(ask()) for _ in range(4000)]
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - a stall, after which all of them are late in one iteration
        await asyncio.sleep(0)
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in ended} <= {PoolTimedOutError, type(None)}
    async with asyncio.timeout(1.0), fair.borrow():
        pass


async def test_more_reads_than_can_be_served_are_refused_at_once() -> None:
    fair = FairSource(_Endless(), size=1, timeout_seconds=10.0)

    async def ask() -> None:
        async with fair.borrow():
            pass

    async with fair.borrow():
        waiting = [asyncio.create_task(ask()) for _ in range(5000)]
        await asyncio.sleep(0)
        with pytest.raises(PoolTimedOutError, match="too many"):
            await ask()
    await asyncio.gather(*waiting)


@given(
    size=st.integers(1, 4),
    rest_factor=st.sampled_from([0.0, 2.0]),
    asking=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans()), max_size=40),
)
def test_whoever_gives_up_or_is_cancelled_every_connection_is_lent_again(
    size: int, rest_factor: float, asking: list[tuple[str, int, bool]]
) -> None:
    async def run() -> None:
        source = _Endless()
        fair = FairSource(source, size=size, timeout_seconds=0.004, rest_factor=rest_factor)

        async def ask(client: str, steps: int) -> None:
            CLIENT.set(client)
            async with fair.borrow():
                for _ in range(steps):
                    await asyncio.sleep(0.001)

        tasks = []
        for client, steps, is_cancelled in asking:
            tasks.append(asyncio.create_task(ask(client, steps)))
            if is_cancelled:
                await asyncio.sleep(0)
                tasks[len(tasks) // 2].cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert ended is None or isinstance(ended, PoolTimedOutError | asyncio.CancelledError)
        async with asyncio.timeout(5.0):
            while fair._free < size:  # connections rest
                await asyncio.sleep(0.001)
        assert (source.lent, fair._free, fair._lines) == (0, size, {})
        assert source.most <= size

    asyncio.run(run())


@pytest.mark.parametrize("search", ["%", "_", "\\", "a_b", "A.B", "a%b", "'", '"', "..", "ä"])
async def test_a_search_finds_what_is_in_the_name_and_knows_no_wildcards(database_url: str, search: str) -> None:
    names = ["a_b", "axb", "a.b", "AB", "a-b-c"]
    async with open_storage(database_url) as (storage, _):
        for name in names:
            await create_coupon(storage, name, 1, StrategyName.ROW_LOCK)
        found = await storage.coupons.listed(CouponFilter(search=search), after=None, limit=10)
    assert [each.coupon.name for each in found] == sorted(name for name in names if search.lower() in name.lower())


@pytest.mark.parametrize(("search", "index"), [("0123", "coupons_name_trgm_idx"), ("coupon", "coupons_pkey")])
def test_a_search_has_the_index_that_fits_what_is_searched_for(database_url: str, search: str, index: str) -> None:
    options = "-c plan_cache_mode=force_custom_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute(
            "INSERT INTO coupons (name, amount, remaining_amount) "
            "SELECT 'coupon-' || lpad(i::text, 6, '0'), 1, 1 FROM generate_series(1, 20000) AS i"
        )
        connection.execute("ANALYZE coupons")
        statement, wanted = statement_of(CouponFilter(search=search), after=None, limit=101)
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}".encode(), wanted))
    assert index in plan
    assert "Seq Scan" not in plan


async def test_where_the_extension_cannot_be_created_the_schema_is_migrated_and_searched_without_the_index(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a user that may make tables, but no extensions."""
    role = f"tables_only_{empty_database_url.rpartition('_')[2]}"
    administrate(empty_database_url, f"CREATE ROLE {role} LOGIN PASSWORD 'tables'")
    try:
        administrate(empty_database_url, f"GRANT ALL ON SCHEMA public TO {role}")
        place = empty_database_url.rpartition("@")[2]
        url = f"postgresql+psycopg://{role}:tables@{place}"
        with caplog.at_level(logging.WARNING, "alembic.runtime.migration"):
            await asyncio.to_thread(migrate, url)
        assert "pg_trgm cannot be created: permission denied" in caplog.text
        async with open_storage(url) as (storage, _):
            await storage.check_schema()
            await create_coupon(storage, "spring", 1, StrategyName.ROW_LOCK)
            found = await storage.coupons.listed(CouponFilter(search="PRI"), after=None, limit=10)
        assert [each.coupon.name for each in found] == ["spring"]
    finally:
        administrate(empty_database_url, f"DROP OWNED BY {role}")
        administrate(empty_database_url, f"DROP ROLE {role}")
