"""PostgreSQL decides: what one transaction admits, alone and against others, and when its answer is lost."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
import uuid_utils.compat as uuid_utils
from sqlalchemy import text

from claimsvc.domain import AlreadyClaimed, Claimed, Coupon, CouponExists, SoldOut, StrategyName, UnknownCoupon
from claimsvc.embedded import EmbeddedServices, PostgresServer
from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.ports import Attempt
from claimsvc.storage import EngineLimits, PostgresStorage, open_engine
from claimsvc.storage.engine import database_failures, unit_of_work
from tests.observed import Observed
from tests.proxy import Proxy, proxy_to

LIMITS = EngineLimits(
    pool_size=4,
    pool_timeout_seconds=1.0,
    connect_timeout_seconds=2,
    statement_timeout_seconds=2.0,
    lock_timeout_seconds=1.0,
    idle_in_transaction_timeout_seconds=1.0,
)


@asynccontextmanager
async def open_storage(database_url: str) -> AsyncIterator[tuple[PostgresStorage, Observed]]:
    observed = Observed()
    async with open_engine(database_url, LIMITS, observed) as engine:
        yield PostgresStorage(engine, unit_timeout_seconds=3.0, observer=observed), observed


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[PostgresStorage]:
    async with open_storage(database_url) as (opened, _):
        yield opened


def attempts(*user_ids: str, on: str = "spring") -> list[Attempt]:
    return [Attempt(str(uuid_utils.uuid7()), on, user_id) for user_id in user_ids]


def kinds(decisions: object) -> list[str]:
    assert isinstance(decisions, list)
    return [type(decision).__name__ for decision in decisions]


async def remaining(storage: PostgresStorage, name: str = "spring") -> int:
    detail = await storage.coupon(name, claimants=1000)
    assert detail is not None
    assert detail.coupon.amount - detail.coupon.remaining_amount == len(detail.claimed_by)
    return detail.coupon.remaining_amount


def administrate(database_url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def terminate_all_others(database_url: str) -> None:
    administrate(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@asynccontextmanager
async def open_storage_through_a_proxy(database_url: str) -> AsyncIterator[tuple[PostgresStorage, Observed, Proxy]]:
    target = urlsplit(database_url)
    assert target.hostname is not None
    assert target.port is not None
    async with proxy_to(target.hostname, target.port) as proxy:
        url = database_url.replace(f":{target.port}/", f":{proxy.port}/")
        async with open_storage(url) as (storage, observed):
            yield storage, observed, proxy


async def test_the_first_in_line_get_what_is_left(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 2, StrategyName.REDLOCK)
    decisions = await storage.admit(attempts("ada", "ben", "cleo"))
    assert kinds(decisions) == ["Claimed", "Claimed", "SoldOut"]
    assert await remaining(storage) == 0


async def test_who_holds_a_claim_gets_it_back_and_takes_no_stock(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 2, StrategyName.REDLOCK)
    [first] = await storage.admit(attempts("ada"))
    assert isinstance(first, Claimed)
    again, other = await storage.admit(attempts("ada", "ben"))
    assert again == AlreadyClaimed(first.claim)
    assert isinstance(other, Claimed)


async def test_a_user_twice_in_a_batch_is_admitted_once_and_takes_one_unit(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 2, StrategyName.REDLOCK)
    first, second, other = await storage.admit(attempts("ada", "ada", "ben"))
    assert isinstance(first, Claimed)
    assert second == AlreadyClaimed(first.claim)
    assert isinstance(other, Claimed)


async def test_who_holds_a_claim_is_told_so_even_when_nothing_is_left(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 1, StrategyName.REDLOCK)
    await storage.admit(attempts("ada"))
    assert kinds(await storage.admit(attempts("ada", "ben"))) == ["AlreadyClaimed", "SoldOut"]


async def test_several_coupons_are_decided_in_one_transaction_each_by_its_own_stock(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 2, StrategyName.REDLOCK)
    await storage.create_coupon("autumn", 1, StrategyName.REDLOCK)
    await storage.admit(attempts("ada", on="autumn"))
    mixed = [
        *attempts("ada", on="spring"),
        *attempts("ada", "ben", on="autumn"),
        *attempts("ada", "ben", "cleo", on="spring"),
        *attempts("ada", on="winter"),
    ]
    assert kinds(await storage.admit(mixed)) == [
        "Claimed",
        "AlreadyClaimed",
        "SoldOut",
        "AlreadyClaimed",
        "Claimed",
        "SoldOut",
        "UnknownCoupon",
    ]
    assert await remaining(storage, "spring") == 0
    assert await remaining(storage, "autumn") == 0


async def test_transactions_over_the_same_coupons_in_any_order_never_wait_for_each_other(
    storage: PostgresStorage,
) -> None:
    names = [f"coupon-{i}" for i in range(8)]
    for name in names:
        await storage.create_coupon(name, 1000, StrategyName.REDLOCK)

    def shuffled(batch: int) -> list[Attempt]:
        order = names[batch % 8 :] + names[: batch % 8]
        return [a for name in (order if batch % 2 else order[::-1]) for a in attempts(f"user-{batch}", on=name)]

    batches = await asyncio.gather(*(storage.admit(shuffled(batch)) for batch in range(40)))
    assert Counter(kind for batch in batches for kind in kinds(batch)) == {"Claimed": 320}


async def test_an_unknown_coupon_is_not_a_sold_out_one(storage: PostgresStorage) -> None:
    assert await storage.admit(attempts("ada", "ben", on="nothing")) == [UnknownCoupon(), UnknownCoupon()]


async def test_a_coupon_is_created_once(storage: PostgresStorage) -> None:
    created = await asyncio.gather(*(storage.create_coupon("spring", 5, StrategyName.REDLOCK) for _ in range(4)))
    assert Counter(type(result) for result in created) == {Coupon: 1, CouponExists: 3}


async def test_without_any_lock_concurrent_transactions_admit_exactly_the_stock(storage: PostgresStorage) -> None:
    """Two lock holders at once are possible. Here there is no lock at all."""
    for round_number in range(10):
        name = f"round-{round_number}"
        await storage.create_coupon(name, 5, StrategyName.REDLOCK)
        batches = await asyncio.gather(
            *(storage.admit(attempts(*(f"{b}-{i}" for i in range(3)), f"both-{b % 2}", on=name)) for b in range(12))
        )
        counted = Counter(kind for batch in batches for kind in kinds(batch))
        assert counted["Claimed"] == 5
        assert counted["Claimed"] + counted["AlreadyClaimed"] + counted["SoldOut"] == 48
        assert await remaining(storage, name) == 0


async def test_without_any_lock_one_user_is_admitted_once(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 100, StrategyName.REDLOCK)
    batches = await asyncio.gather(*(storage.admit(attempts("ada")) for _ in range(20)))
    assert Counter(kind for batch in batches for kind in kinds(batch)) == {"Claimed": 1, "AlreadyClaimed": 19}
    assert await remaining(storage) == 99


async def test_claims_are_listed_in_the_order_of_their_admission(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 10, StrategyName.REDLOCK)
    await storage.admit(attempts("zoe", "ada"))
    await storage.admit(attempts("mia", "ben"))
    detail = await storage.coupon("spring", claimants=3)
    assert detail is not None
    assert detail.claimed_by == ("zoe", "ada", "mia")


async def test_a_row_that_the_database_refuses_sinks_alone(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 10, StrategyName.REDLOCK)
    poisoned = attempts("ada", "ben", "x" * 256, "cleo", "dan")
    decisions = await storage.admit(poisoned)
    assert kinds(decisions) == ["Claimed", "Claimed", "InvariantViolatedError", "Claimed", "Claimed"]
    assert await remaining(storage) == 6


async def test_a_line_break_in_a_user_id_never_makes_two_users_of_one(storage: PostgresStorage) -> None:
    """The statement takes ids as lines. No such id passes the API; one that did would have to sink alone, too."""
    await storage.create_coupon("spring", 10, StrategyName.REDLOCK)
    decisions = await storage.admit(attempts("ada", "b\nen", "cleo"))
    assert kinds(decisions) == ["Claimed", "InvariantViolatedError", "Claimed"]
    detail = await storage.coupon("spring", claimants=10)
    assert detail is not None
    assert detail.claimed_by == ("ada", "cleo")


@pytest.mark.parametrize("outcome_of_commit", ["kept", "lost"])
async def test_a_commit_whose_answer_is_lost_is_looked_up(
    database_url: str, outcome_of_commit: str
) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, observed, proxy):
        await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
        if outcome_of_commit == "kept":
            proxy.cut_after(b"COMMIT")
            assert kinds(await storage.admit(attempts("ada", "ben"))) == ["Claimed", "Claimed"]
            assert await remaining(storage) == 3
        else:
            # A deferred constraint makes COMMIT itself fail, after which its answer is lost.
            administrate(database_url, _REFUSE_AT_COMMIT)
            proxy.cut_after(b"COMMIT")
            with pytest.raises(UnavailableError):
                await storage.admit(attempts("ada", "ben"))
            assert await remaining(storage) == 5
        assert proxy.cuts == 1
        assert observed.connections["in_use"] == 0


@pytest.mark.parametrize("moment", [b"application_name", b"transaction_timeout"], ids=["greeted", "set up"])
async def test_a_server_that_freezes_while_a_connection_is_made_is_waited_for_no_longer_than_the_limit(
    database_url: str, moment: bytes
) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, observed, proxy):
        proxy.silent_after(moment)
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(LIMITS.connect_timeout_seconds + 3):
                await storage.check()
        assert proxy.swallowed
        assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 0)
        proxy.is_silent = False
        await storage.check()


_REFUSE_AT_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused at commit'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_claims DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def test_connections_that_died_while_idle_are_replaced_unnoticed(
    storage: PostgresStorage, database_url: str
) -> None:
    await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
    terminate_all_others(database_url)
    assert kinds(await storage.admit(attempts("ada"))) == ["Claimed"]


_READS: dict[str, Callable[[PostgresStorage], Awaitable[object]]] = {
    "the strategies of coupons": lambda storage: storage.stock(["spring"]),
    "a coupon": lambda storage: storage.coupon("spring", claimants=1),
    "a claim that finds the coupon sold out": lambda storage: storage.admit(attempts("ben")),
}


@pytest.mark.parametrize("read", _READS.values(), ids=_READS.keys())
async def test_reading_does_not_fail_for_connections_that_died_while_idle(
    database_url: str, read: Callable[[PostgresStorage], Awaitable[object]]
) -> None:
    async with open_storage(database_url) as (storage, observed):
        await storage.create_coupon("spring", 1, StrategyName.REDLOCK)
        await storage.admit(attempts("ada"))
        before = await read(storage)
        await asyncio.gather(*(storage.check() for _ in range(LIMITS.pool_size)))
        assert observed.connections["idle"] == LIMITS.pool_size
        terminate_all_others(database_url)
        assert await read(storage) == before


async def test_a_stock_that_contradicts_itself_is_noticed_and_nothing_is_kept(
    storage: PostgresStorage, database_url: str
) -> None:
    """Something lets the claims in but drops the decrement: the transaction must not be committed."""
    await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
    administrate(
        database_url,
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER skip BEFORE UPDATE ON coupons FOR EACH ROW EXECUTE FUNCTION skip()",
    )
    with pytest.raises(InvariantViolatedError):
        await storage.admit(attempts("ada"))
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(0,)]


async def test_a_row_lock_that_another_keeps_is_waited_for_no_longer_than_the_limit(
    storage: PostgresStorage, database_url: str
) -> None:
    await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("SELECT FROM coupons FOR UPDATE")
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(5):
                await storage.admit(attempts("ada"))
    assert kinds(await storage.admit(attempts("ada"))) == ["Claimed"]


async def test_connections_are_counted_right_while_the_server_takes_none(
    database_url: str, postgres: PostgresServer
) -> None:
    name = urlsplit(database_url).path.strip("/")
    async with open_storage(database_url) as (storage, observed):
        await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            for _ in range(3):
                with pytest.raises(UnavailableError):
                    await storage.admit(attempts("ada"))
            assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 0)
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        assert kinds(await storage.admit(attempts("ada"))) == ["Claimed"]
        assert (observed.connections["idle"], observed.connections["in_use"]) == (1, 0)


async def test_a_process_that_stops_within_a_transaction_holds_its_rows_no_longer_than_the_limit(
    storage: PostgresStorage, database_url: str
) -> None:
    await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
    async with open_engine(database_url, LIMITS, Observed()) as engine, unit_of_work(engine, 60.0) as unit:
        with pytest.raises(psycopg.Error):
            async with unit.driver.pipeline():
                await unit.driver.execute("BEGIN")
                await (await unit.driver.execute("SELECT name FROM coupons FOR UPDATE")).fetchall()
                # As if this process were paused here, with the rest of its pipeline not sent yet.
                decisions: object = None
                async with asyncio.timeout(10):
                    while decisions is None:
                        with contextlib.suppress(UnavailableError):
                            decisions = await storage.admit(attempts("ada"))
                assert kinds(decisions) == ["Claimed"]


async def test_a_server_that_is_frozen_is_not_waited_for_for_ever(
    services: EmbeddedServices, storage: PostgresStorage
) -> None:
    await storage.create_coupon("spring", 5, StrategyName.REDLOCK)
    assert services.postgres is not None
    services.postgres.pause()
    try:
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(10):
                await storage.admit(attempts("ada"))
    finally:
        services.postgres.resume()
    # Whether the frozen server had begun is its affair; in the end it is one claim or the user may still have it.
    assert kinds(await storage.admit(attempts("ada")))[0] in {"Claimed", "AlreadyClaimed"}
    assert await remaining(storage) == 4


async def test_a_server_that_freezes_after_its_answer_is_not_waited_for_either(
    services: EmbeddedServices, database_url: str, storage: PostgresStorage
) -> None:
    """Giving a connection back says ROLLBACK if something failed in a transaction, and that has an answer too."""
    assert services.postgres is not None
    async with open_engine(database_url, LIMITS, Observed()) as engine:
        try:
            with contextlib.suppress(*database_failures):
                async with asyncio.timeout(10), unit_of_work(engine, 0.5) as unit:
                    await unit.driver.execute("BEGIN")
                    services.postgres.pause()
        finally:
            services.postgres.resume()
        async with unit_of_work(engine, 0.5) as unit:
            assert (await unit.connection.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_look_tells_all_but_whom_to_admit_and_waits_for_no_lock(
    storage: PostgresStorage, database_url: str
) -> None:
    await storage.create_coupon("spring", 1, StrategyName.COUNTER)
    await storage.create_coupon("autumn", 1, StrategyName.COUNTER)
    [claimed] = await storage.admit(attempts("ada"))
    assert isinstance(claimed, Claimed)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("SELECT FROM coupons FOR UPDATE")
        looked = await storage.look(
            [*attempts("ada", "ben"), *attempts("ben", on="autumn"), *attempts("ben", on="winter")]
        )
    assert looked == [AlreadyClaimed(claimed.claim), SoldOut(), None, UnknownCoupon()]


async def test_sold_out_is_said_of_an_empty_stock(storage: PostgresStorage) -> None:
    await storage.create_coupon("spring", 1, StrategyName.REDLOCK)
    await storage.admit(attempts("ada"))
    assert await storage.admit(attempts("ben")) == [SoldOut()]


async def test_a_connection_that_a_cancellation_left_in_a_pipeline_is_not_lent_again(database_url: str) -> None:
    async with open_engine(database_url, LIMITS, Observed()) as engine:
        with pytest.raises(asyncio.CancelledError):
            async with unit_of_work(engine, 3.0) as unit:
                # As psycopg leaves it when the task is cancelled just as the last answer comes.
                await unit.driver.pipeline().__aenter__()
                await unit.driver.execute("SELECT pg_sleep(0.1)")
                raise asyncio.CancelledError
        async with unit_of_work(engine, 3.0) as unit, unit.driver.pipeline():
            assert await (await unit.driver.execute("SELECT 1")).fetchall() == [(1,)]
