"""The whole service over HTTP, on real PostgreSQL and real masters."""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import aiohttp
import psycopg
import pytest
import structlog
from redis.asyncio import Redis

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from tests.api.memory import ADMIN_KEY, ADMIN_KEY_DIGEST, served
from tests.waiting import until

Open = Callable[[], Awaitable[str]]


@pytest.fixture
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def open_service(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Open]:
    """Starts instances, all on the same databases; each is its URL."""
    async with AsyncExitStack() as stack:

        async def start() -> str:
            settings = Settings(
                database_url=database_url,
                redis_urls=redis_urls,
                admin_keys=(ADMIN_KEY_DIGEST,),
                database_lock_timeout_seconds=30.0,
                database_statement_timeout_seconds=40.0,
                claim_timeout_seconds=60.0,
            )
            app = await stack.enter_async_context(application(settings))
            port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
            return f"http://127.0.0.1:{port}"

        yield start


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def create(client: aiohttp.ClientSession, url: str, name: str, amount: int) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with client.post(f"{url}/api/coupons", json={"name": name, "amount": amount}, headers=headers) as answer:
        assert answer.status == 201


async def claim(client: aiohttp.ClientSession, url: str, name: str, user: str) -> tuple[int, dict[str, object], float]:
    started = time.monotonic()
    async with client.post(f"{url}/api/coupons/claim", json={"user_id": user, "coupon_name": name}) as answer:
        return answer.status, await answer.json(content_type=None), time.monotonic() - started


async def metric(client: aiohttp.ClientSession, url: str, series: str) -> float:
    async with client.get(f"{url}/metrics") as answer:
        found = re.search(rf"^{re.escape(series)} (\S+)$", await answer.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_claim_is_made_once_and_told_again(open_service: Open, client: aiohttp.ClientSession) -> None:
    url = await open_service()
    await create(client, url, "spring", 2)
    status, made, _ = await claim(client, url, "spring", "ada")
    assert status == 201
    status, problem, _ = await claim(client, url, "spring", "ada")
    assert (status, problem["type"], problem["claim"]) == (409, "/problems/already-claimed", made)
    async with client.get(f"{url}/api/coupons/spring") as answer:
        coupon = await answer.json()
    assert (coupon["remaining_amount"], coupon["claimed_by"]) == (1, ["ada"])


async def test_while_a_claim_is_held_up_the_lock_is_on_the_masters_and_others_give_up_after_their_retries(
    open_service: Open, client: aiohttp.ClientSession, database_url: str, redis_urls: tuple[str, ...]
) -> None:
    here, there = await open_service(), await open_service()
    await create(client, here, "spring", 5)
    masters = [Redis.from_url(url) for url in redis_urls]
    with psycopg.connect(database_url.replace("+psycopg", "")) as obstacle:
        obstacle.execute("SELECT FROM coupons FOR UPDATE")
        held_up = asyncio.create_task(claim(client, here, "spring", "ada"))

        async def is_locked() -> bool:
            return all([await master.exists("claim:coupon:spring") for master in masters])

        await until(is_locked, "it is locked on every master")
        assert all([0 < await master.pttl("claim:coupon:spring") <= 20_000 for master in masters])

        status, problem, seconds = await claim(client, there, "spring", "ben")
        assert (status, problem["type"]) == (503, "/problems/lock-busy")
        assert 1.5 <= seconds < 2.5
    assert await metric(client, there, 'claimsvc_lock_attempts_total{coupon="other",result="busy"}') == 4
    assert await metric(client, there, 'claimsvc_lock_retries_total{coupon="other"}') == 3
    assert await metric(client, there, 'claimsvc_lock_wait_seconds_count{coupon="other",result="busy"}') == 1
    assert await metric(client, there, 'claimsvc_lock_wait_seconds_sum{coupon="other",result="busy"}') >= 1.5
    assert (await held_up)[0] == 201
    for master in masters:
        await master.aclose()


async def test_the_line_of_a_claim_says_where_its_time_went(
    log_lines: list[structlog.typing.EventDict], open_service: Open, client: aiohttp.ClientSession, database_url: str
) -> None:
    here, there = await open_service(), await open_service()
    await create(client, here, "spring", 5)
    with psycopg.connect(database_url.replace("+psycopg", "")) as obstacle:
        obstacle.execute("SELECT FROM coupons FOR UPDATE")
        decided = asyncio.create_task(claim(client, here, "spring", "ada"))
        while not await metric(client, here, "claimsvc_batch_size_count"):
            await asyncio.sleep(0.01)
        waits_for_it = asyncio.create_task(claim(client, here, "spring", "ben"))
        await claim(client, there, "spring", "cleo")
    await asyncio.gather(decided, waits_for_it)

    ada, ben = (line for line in log_lines if line.get("outcome") == "claimed")
    [cleo] = (line for line in log_lines if line.get("outcome") == "lock-busy")
    for line in (ada, ben, cleo):
        stages = line["queue_wait_ms"] + line["lock_wait_ms"] + line.get("transaction_ms", 0)
        assert stages == pytest.approx(line["duration_ms"], abs=50)
    assert 0 < ada["lock_wait_ms"] < 500
    assert ada["transaction_ms"] > 1400
    # The lock was held already: it waited for the batch before its own.
    assert (ben["lock_wait_ms"], ben["queue_wait_ms"] > 1400) == (0, True)
    assert ben["transaction_ms"] < 500
    assert cleo["lock_wait_ms"] > 1400
    assert (cleo["log_level"], "transaction_ms" in cleo) == ("warning", False)


@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize("scenario", ["flash-sale", "double-dip"])
async def test_the_stress_test_finds_nothing_wrong(open_service: Open, scenario: str, instances: int) -> None:
    urls = [await open_service() for _ in range(instances)]
    arguments = [part for url in urls for part in ("--url", url)]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stress_test", scenario, "--rounds", "5", *arguments),
        env={**os.environ, "CLAIMSVC_ADMIN_KEY": ADMIN_KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    assert program.returncode == 0, said.decode()
