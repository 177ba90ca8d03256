"""Connections that are cut, frozen or dead: the answer is true all the same, or there is none, in time."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
import pytest

from claimsvc.domain import AuditEntry, Claimed, ClaimOptions, IdempotencyKey, StrategyName
from claimsvc.embedded import EmbeddedServices, PostgresServer
from claimsvc.errors import UnavailableError
from claimsvc.postgres import Repositories, SingleConnection
from claimsvc.postgres.connections import database_failures, unit_of_work
from claimsvc.postgres.pool import open_pool
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.storage import (
    LIMITS,
    attempts,
    create_coupon,
    kinds,
    open_storage,
    open_storage_through_a_proxy,
    remaining,
    terminate_all_others,
)
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("sold_first")

_REFUSE_AT_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused at commit'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_claims DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize("outcome_of_commit", ["kept", "lost"])
async def test_a_commit_whose_answer_is_lost_is_looked_up(database_url: str, outcome_of_commit: str) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, observed, proxy):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
        if outcome_of_commit == "kept":
            proxy.cut_after(b"COMMIT")
            assert kinds(await storage.admission.admit(attempts("ada", "ben"))) == ["Claimed", "Claimed"]
            assert await remaining(storage) == 3
        else:
            # A deferred constraint makes COMMIT itself fail, after which its answer is lost.
            administrate(database_url, _REFUSE_AT_COMMIT)
            proxy.cut_after(b"COMMIT")
            with pytest.raises(UnavailableError):
                await storage.admission.admit(attempts("ada", "ben"))
            assert await remaining(storage) == 5
        assert proxy.cuts == 1
        assert observed.connections["in_use"] == 0


async def test_an_answer_that_is_looked_up_is_no_repetition_of_another(database_url: str) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, _, proxy):
        await create_coupon(storage, "spring", 1, StrategyName.REDLOCK)
        asked = [
            replace(
                each,
                options=ClaimOptions(
                    idempotency_key=IdempotencyKey("anybody", each.user_id, b"f", "the caller's own id")
                ),
            )
            for each in attempts("ada", "ben")
        ]
        proxy.cut_after(b"COMMIT")
        assert kinds(await storage.admission.admit(asked)) == ["Claimed", "SoldOut"]
        assert proxy.cuts == 1
        assert kinds(await storage.admission.admit(asked)) == ["Replayed", "Replayed"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [b"application_name", b"transaction_timeout"], ids=["greeted", "set up"])
async def test_a_server_that_freezes_while_a_connection_is_made_is_waited_for_no_longer_than_the_limit(
    database_url: str, moment: bytes
) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, observed, proxy):
        proxy.silent_after(moment)
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(LIMITS.connect_timeout_seconds + 3):
                await storage.check_schema()
        assert proxy.swallowed
        assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 0)
        proxy.is_silent = False
        await storage.check_schema()


async def test_connections_that_died_while_idle_are_replaced_unnoticed(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    terminate_all_others(database_url)
    assert kinds(await storage.admission.admit(attempts("ada"))) == ["Claimed"]


_READS: dict[str, Callable[[Repositories], Awaitable[object]]] = {
    "the strategies of coupons": lambda storage: storage.coupons.stock(["spring"]),
    "a coupon": lambda storage: storage.coupons.coupon("spring", claimants=1),
    "a claim that finds the coupon sold out": lambda storage: storage.admission.admit(attempts("ben")),
}


@pytest.mark.parametrize("read", _READS.values(), ids=_READS.keys())
async def test_reading_does_not_fail_for_connections_that_died_while_idle(
    database_url: str, read: Callable[[Repositories], Awaitable[object]]
) -> None:
    async with open_storage(database_url) as (storage, observed):
        await create_coupon(storage, "spring", 1, StrategyName.REDLOCK)
        await storage.admission.admit(attempts("ada"))
        before = await read(storage)
        await asyncio.gather(*(storage.check_schema() for _ in range(LIMITS.pool_size)))
        assert observed.connections["idle"] == LIMITS.pool_size
        terminate_all_others(database_url)
        assert await read(storage) == before


async def test_a_command_keeps_one_connection_and_never_one_whose_transaction_is_open(database_url: str) -> None:
    async with contextlib.aclosing(SingleConnection(database_url, LIMITS)) as source:
        async with unit_of_work(source, 3.0) as first:
            assert await (await first.execute("SELECT 1")).fetchall() == [(1,)]
        async with unit_of_work(source, 3.0) as again, unit_of_work(source, 3.0) as beside:
            assert again is first
            assert beside is not first
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with unit_of_work(source, 3.0) as failed:
                await failed.execute("BEGIN")
                await failed.execute("SELECT 1 / 0")
        assert failed.closed
        async with unit_of_work(source, 3.0) as fresh:
            assert fresh is not failed
            assert await (await fresh.execute("SELECT 1")).fetchall() == [(1,)]
    assert (fresh.closed, beside.closed) == (True, True)


async def test_the_causes_of_a_failure_to_connect_end() -> None:
    """Programs that follow them, as tracebacks do, would not end otherwise."""
    async with open_storage("postgresql+psycopg://nobody:x@127.0.0.1:1/nothing") as (storage, _):
        with pytest.raises(UnavailableError) as raised:
            await storage.check_schema()
    causes: list[BaseException] = [raised.value]
    while (cause := causes[-1].__cause__) is not None:
        assert cause not in causes
        causes.append(cause)
    assert isinstance(causes[-1], psycopg.Error)


async def test_connections_are_counted_right_while_the_server_takes_none(
    database_url: str, postgres: PostgresServer
) -> None:
    name = urlsplit(database_url).path.strip("/")
    async with open_storage(database_url) as (storage, observed):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            for _ in range(3):
                with pytest.raises(UnavailableError):
                    await storage.admission.admit(attempts("ada"))
            assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 0)
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        assert kinds(await storage.admission.admit(attempts("ada"))) == ["Claimed"]
        assert (observed.connections["idle"], observed.connections["in_use"]) == (1, 0)


async def test_a_process_that_stops_within_a_transaction_holds_its_rows_no_longer_than_the_limit(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    async with open_pool(database_url, LIMITS, Observed()) as pool, unit_of_work(pool, 60.0) as driver:
        with pytest.raises(psycopg.Error):
            async with driver.pipeline():
                await driver.execute("BEGIN")
                await (await driver.execute("SELECT name FROM coupons FOR UPDATE")).fetchall()
                # As if this process were paused here, with the rest of its pipeline not sent yet.
                decisions: object = None
                async with asyncio.timeout(10):
                    while decisions is None:
                        with contextlib.suppress(UnavailableError):
                            decisions = await storage.admission.admit(attempts("ada"))
                assert kinds(decisions) == ["Claimed"]


@pytest.mark.slow
async def test_a_server_that_is_frozen_is_not_waited_for_for_ever(
    services: EmbeddedServices, storage: Repositories
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    assert services.postgres is not None
    services.postgres.pause()
    try:
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(10):
                await storage.admission.admit(attempts("ada"))
    finally:
        services.postgres.resume()
    # Whether the frozen server had begun is its affair; in the end it is one claim or the user may still have it.
    assert kinds(await storage.admission.admit(attempts("ada")))[0] in {"Claimed", "AlreadyClaimed"}
    assert await remaining(storage) == 4


@pytest.mark.slow
async def test_a_server_that_freezes_after_its_answer_is_not_waited_for_either(
    services: EmbeddedServices, database_url: str, storage: Repositories
) -> None:
    """Giving a connection back says ROLLBACK if something failed in a transaction, and that has an answer too."""
    assert services.postgres is not None
    async with open_pool(database_url, LIMITS, Observed()) as pool:
        try:
            with contextlib.suppress(*database_failures):
                async with asyncio.timeout(10), unit_of_work(pool, 0.5) as driver:
                    await driver.execute("BEGIN")
                    services.postgres.pause()
        finally:
            services.postgres.resume()
        async with unit_of_work(pool, 0.5) as driver:
            assert await (await driver.execute("SELECT 1")).fetchall() == [(1,)]


async def test_a_connection_that_a_cancellation_left_in_a_pipeline_is_not_lent_again(database_url: str) -> None:
    async with open_pool(database_url, LIMITS, Observed()) as pool:
        with pytest.raises(asyncio.CancelledError):
            async with unit_of_work(pool, 3.0) as driver:
                # As psycopg leaves it when the task is cancelled just as the last answer comes.
                await driver.pipeline().__aenter__()
                await driver.execute("SELECT pg_sleep(0.1)")
                raise asyncio.CancelledError
        async with unit_of_work(pool, 3.0) as driver, driver.pipeline():
            assert await (await driver.execute("SELECT 1")).fetchall() == [(1,)]


@pytest.mark.filterwarnings("ignore:The garbage collector:sqlalchemy.exc.SAWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_connection_whose_borrower_vanished_is_counted_no_more(database_url: str) -> None:
    """As happens to whoever is cancelled even in giving it back."""
    observed = Observed()
    async with open_pool(database_url, LIMITS, observed) as pool:
        borrowed = await pool._engine.connect()
        assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 1)
        del borrowed
        gc.collect()
        assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 0)
        async with pool.borrow():
            assert (observed.connections["idle"], observed.connections["in_use"]) == (0, 1)


async def test_what_a_server_has_not_read_yet_is_not_carried_out_once_it_was_decided_again(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'claimsvc'"
    [(backend,)] = administrate(database_url, sessions)
    assert isinstance(backend, int)
    os.kill(backend, signal.SIGSTOP)
    try:
        [claimed] = await storage.admission.admit(attempts("ada"))
        assert isinstance(claimed, Claimed)
        await storage.claims.cancel(claimed.claim.id, AuditEntry("test", "claim.cancel", "claim", "it"))
    finally:
        os.kill(backend, signal.SIGCONT)
    await until(lambda: (backend,) not in administrate(database_url, sessions), "the session has ended")
    assert await remaining(storage) == 5


async def test_a_claim_that_is_over_before_its_end_is_known_is_not_made_again(database_url: str) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, _, proxy):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
        administrate(
            database_url,
            """
            CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                UPDATE user_claims SET state = 'cancelled', ended_at = now() WHERE id = new.id;
                UPDATE coupons SET remaining_amount = remaining_amount + 1 WHERE name = new.coupon_name;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER cancel AFTER INSERT ON user_claims DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION cancel();
            """,
        )
        proxy.cut_after(b"COMMIT")
        with pytest.raises(UnavailableError, match="has ended since"):
            await storage.admission.admit(attempts("ada"))
        assert await remaining(storage) == 5
