"""PostgreSQL's own log names no user, no code and no key, whatever goes wrong: it survives the forgetting of a user."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import AuditEntry, ClaimOptions, IdempotencyKey, NewCode, StrategyName
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.errors import InvariantViolatedError
from claimsvc.postgres import Repositories, migrate
from claimsvc.postgres.claiming.fast_path import FastPath
from claimsvc.postgres.connections import Driver, SingleConnection, unit_of_work
from tests.support.databases import administrate
from tests.support.storage import LIMITS, attempts, create_coupon, kinds, open_storage

USER = "ursula-5f1c"
CODE = "WINTER-5F1C"
KEY = "key-5f1c"
_LOUD = {"log_lock_waits": "on", "deadlock_timeout": "100ms", "log_min_duration_statement": "0"}


class ServerLog:
    """What a PostgreSQL has written to its log since this was made.

    Args:
        folder: of the server.
    """

    def __init__(self, folder: Path) -> None:
        (self._file,) = folder.glob("**/postgres/log")
        self._begin = self._file.stat().st_size

    def text(self) -> str:
        with self._file.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")


@pytest.fixture(scope="module")
def loud() -> Iterator[tuple[EmbeddedServices, Path]]:
    """A PostgreSQL that logs statements with their parameters, as far as a session lets it."""
    with temporary_state_dir() as folder, embedded_services(folder, masters=1, durable=False) as running:
        migrate(running.database_url)
        for name, value in (*_LOUD.items(), ("log_parameter_max_length_on_error", "-1")):
            administrate(running.database_url, f"ALTER SYSTEM SET {name} = '{value}'")
        administrate(running.database_url, "SELECT pg_reload_conf()")
        yield running, folder


@pytest.fixture
async def logged(loud: tuple[EmbeddedServices, Path]) -> AsyncIterator[tuple[Repositories, ServerLog]]:
    running, folder = loud
    administrate(running.database_url, "TRUNCATE coupons, code_names CASCADE")
    log = ServerLog(folder)
    async with open_storage(running.database_url) as (storage, _):
        await create_coupon(storage, "spring", 100_000, StrategyName.REDLOCK)
        yield storage, log


def assert_names_nobody(log: ServerLog, *expected: str) -> None:
    text = log.text()
    assert [line for line in text.splitlines() if "5f1c" in line.lower()] == []
    assert "$1" in text, "statements are logged"
    for words in expected:
        assert words in text


async def test_a_second_claim_is_not_logged_by_name(
    logged: tuple[Repositories, ServerLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, log = logged
    # Every batch is at first taken for one that gets all that it asks for, which the unique index refutes.
    monkeypatch.setattr(FastPath, "_sells", lambda _, coupon_names: len(coupon_names) == 1)
    assert kinds(await storage.admission.admit(attempts(USER))) == ["Claimed"]
    assert kinds(await storage.admission.admit(attempts(USER))) == ["AlreadyClaimed"]
    assert_names_nobody(log, "duplicate key value violates unique constraint")


async def test_a_refused_row_is_not_logged(logged: tuple[Repositories, ServerLog]) -> None:
    storage, log = logged
    (refused,) = await storage.admission.admit(attempts(USER * 30))
    assert isinstance(refused, InvariantViolatedError)
    assert_names_nobody(log, "violates check constraint")


async def test_codes_that_exist_and_keys_are_not_logged(logged: tuple[Repositories, ServerLog]) -> None:
    storage, log = logged

    async def rows() -> AsyncIterator[Sequence[NewCode]]:
        yield [NewCode(1, CODE)]

    for _ in range(2):
        await storage.codes.add("spring", rows(), AuditEntry("test", "codes.add", "coupon", "spring"), atomic=False)
    keyed = [
        replace(each, options=ClaimOptions(idempotency_key=IdempotencyKey("anybody", KEY, b"f", "id")))
        for each in attempts(USER)
    ]
    for _ in range(2):
        await storage.admission.admit(keyed)
    assert_names_nobody(log)


async def _update(driver: Driver, user_id: str) -> None:
    await driver.execute("UPDATE user_claims SET slot = slot WHERE user_id = %(user_id)s", {"user_id": user_id})


async def test_deadlocks_and_time_outs_are_not_logged_by_name(
    loud: tuple[EmbeddedServices, Path], logged: tuple[Repositories, ServerLog]
) -> None:
    storage, log = logged
    users = (f"{USER}-a", f"{USER}-b")
    limits = replace(LIMITS, idle_in_transaction_timeout_seconds=10.0)
    await storage.admission.admit(attempts(*users))
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(aclosing(SingleConnection(loud[0].database_url, limits)))
        first, second = [await stack.enter_async_context(unit_of_work(source, 10.0)) for _ in users]
        for session, user_id in zip((first, second), users, strict=True):
            await session.execute("BEGIN")
            await _update(session, user_id)
        crossed = await asyncio.gather(_update(first, users[1]), _update(second, users[0]), return_exceptions=True)
        assert [type(error) for error in crossed if error is not None] == [psycopg.errors.DeadlockDetected]
        for session in (first, second):
            await session.execute("ROLLBACK")
        await first.execute("BEGIN")
        await _update(first, users[0])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await _update(second, users[0])
        await first.execute("ROLLBACK")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await first.execute("SELECT pg_sleep(60), %(user_id)s::text", {"user_id": USER})
    assert_names_nobody(log, "deadlock detected", "lock timeout", "statement timeout", "still waiting for")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user_ids=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=300), max_size=3))
async def test_whatever_a_user_is_called_it_is_not_logged(
    logged: tuple[Repositories, ServerLog], user_ids: list[str]
) -> None:
    """Also what no claim can be made of, as HTTP lets none of it pass: too long, empty, NUL."""
    storage, log = logged
    await storage.admission.admit(attempts(USER, *(f"{USER}{user_id}" for user_id in user_ids)))
    assert_names_nobody(log)
