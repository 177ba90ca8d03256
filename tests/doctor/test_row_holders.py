"""Who holds a coupon's row in PostgreSQL: `claimsvc doctor` names the row and the session, on a real server."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from claimsvc.doctor import Finding, Level, examine
from claimsvc.embedded import EmbeddedServices
from tests.doctor.conftest import settings_of, variables
from tests.support.injectors.postgres import connect, number
from tests.support.program import claimsvc_here
from tests.support.waiting import block_until


@pytest.fixture
def url(sound_database_url: str) -> str:
    url = sound_database_url.replace("+psycopg", "")
    with connect(url) as session:
        session.execute(
            "INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 9, 9), ('autumn', 9, 9)"
        )
    return url


@contextmanager
def holding(url: str, statement: str, application: str = "psql") -> Iterator[int]:
    """A session that holds what the statement locks, and does nothing. Yields its pid."""
    with psycopg.connect(url, application_name=application) as session:
        session.execute(statement.encode())
        time.sleep(1.1)  # shorter transactions are nothing to report
        yield session.info.backend_pid
        session.rollback()


async def held_rows(sound: EmbeddedServices, database_url: str) -> list[Finding]:
    findings = await examine(settings_of(database_url, sound.redis_urls))
    return [finding for finding in findings if finding.subject.startswith("coupon ")]


async def test_whoever_holds_a_row_is_named_with_what_it_does(
    sound: EmbeddedServices, sound_database_url: str, url: str
) -> None:
    assert await held_rows(sound, sound_database_url) == []
    statement = "SELECT FROM coupons WHERE name = 'spring' FOR UPDATE"
    with holding(url, statement) as pid:
        [finding] = await held_rows(sound, sound_database_url)
        assert (finding.level, finding.subject) == (Level.WARNING, "coupon spring")
        assert re.fullmatch(
            rf"its row is held for [1-9] s by pid {pid} \(psql, user claimsvc, from [\w. ]+\); it is idle in "
            rf"transaction; 0 sessions wait for it; its last statement: {re.escape(statement)}",
            finding.found,
        )
        assert finding.mend.endswith(f"SELECT pg_terminate_backend({pid})")
        waiter = threading.Thread(target=wait_for_row, args=(url,))
        waiter.start()
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))"
        block_until(lambda: number(url, waiting), "somebody waits for the row")
        await asyncio.sleep(1.1)
        [finding] = await held_rows(sound, sound_database_url)  # not the one that waits
        assert finding.level is Level.WRONG
        assert f"by pid {pid} " in finding.found
        assert "1 session waits for it" in finding.found
    waiter.join()
    assert await held_rows(sound, sound_database_url) == []


def wait_for_row(url: str) -> None:
    with connect(url) as session:
        session.execute("UPDATE coupons SET remaining_amount = 8 WHERE name = 'spring'")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE coupons SET remaining_amount = remaining_amount - 1 WHERE name = 'spring'",
        "DELETE FROM coupons WHERE name = 'spring'",
        "SELECT FROM coupons WHERE name = 'spring' FOR NO KEY UPDATE",
        "SAVEPOINT mine; SELECT FROM coupons WHERE name = 'spring' FOR UPDATE",
    ],
)
async def test_every_way_to_hold_a_row_is_found_and_only_that_row(
    sound: EmbeddedServices, sound_database_url: str, url: str, statement: str
) -> None:
    with holding(url, statement, "a script"):
        [finding] = await held_rows(sound, sound_database_url)
    assert finding.subject == "coupon spring"
    assert "(a script, user" in finding.found


async def test_a_role_that_may_not_see_other_sessions_is_told_the_pid_all_the_same(
    sound: EmbeddedServices, sound_database_url: str, url: str
) -> None:
    with connect(url) as session:
        session.execute("CREATE ROLE modest LOGIN PASSWORD 'modest'")
        session.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO modest")
        try:
            parts = urlsplit(sound_database_url)
            modest = sound_database_url.replace(f"{parts.username}:{parts.password}@", "modest:modest@")
            with holding(url, "SELECT FROM coupons WHERE name = 'spring' FOR UPDATE") as pid:
                [finding] = await held_rows(sound, modest)
            assert f"its row is held by pid {pid} (psql, user claimsvc)" in finding.found
            assert "insufficient privilege" not in finding.found
        finally:
            session.execute("DROP OWNED BY modest")
            session.execute("DROP ROLE modest")


def test_the_command_says_it_in_a_line(sound: EmbeddedServices, sound_database_url: str, url: str) -> None:
    with holding(url, "SELECT FROM coupons WHERE name = 'autumn' FOR UPDATE") as pid:
        told = claimsvc_here("doctor", **variables(settings_of(sound_database_url, sound.redis_urls)))
    [line] = [line for line in told.stdout.splitlines() if "coupon autumn" in line]
    assert line.startswith("warning  coupon autumn: its row is held for ")
    assert f"To fix it: find out what it does; to end it: SELECT pg_terminate_backend({pid})" in line
    assert told.returncode == 0
