"""The load balancer of docker-compose.yml, really run before real instances."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sized
from functools import partial
from itertools import count
from pathlib import Path

import aiohttp
import psycopg
import pytest

from claimsvc.embedded import PostgresServer, free_port
from tests.deploy.files import environment_of
from tests.support.admin import ADMIN_DIGEST, ADMIN_KEY
from tests.support.databases import copy_of
from tests.support.haproxy import CONFIGURATION, PROGRAM, Balancer, balancer, needs_haproxy
from tests.support.instance import Instance
from tests.support.raw_http import connected, request
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, needs_haproxy]

NAMES = ("app-1", "app-2")
DRAIN_NOTICE = "CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS"


@pytest.fixture
async def instances(database_url: str, redis_urls: tuple[str, ...], tmp_path: Path) -> AsyncIterator[list[Instance]]:
    """Two instances that are not started yet, on the same databases."""
    settings = {
        "CLAIMSVC_DATABASE_URL": database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(redis_urls),
        "CLAIMSVC_ADMIN_KEYS": ADMIN_DIGEST,
        DRAIN_NOTICE: environment_of("app-1", {})[DRAIN_NOTICE],
        # This machine's clients, and HAProxy, have addresses of loopback; in Compose they have those of its networks.
        "CLAIMSVC_TRUSTED_PROXIES": "127.0.0.1",
    }
    made = [
        Instance(name, {**settings, "CLAIMSVC_ADMIN_PORT": str(free_port())}, tmp_path / f"{name}.log")
        for name in NAMES
    ]
    yield made
    for instance in made:
        instance.kill()
        instance.close()


@pytest.fixture
def lb(instances: list[Instance], tmp_path: Path) -> Iterator[Balancer]:
    operators = {instance.name: int(instance.settings["CLAIMSVC_ADMIN_PORT"]) for instance in instances}
    with balancer({instance.name: instance.port for instance in instances}, tmp_path, operators) as running:
        yield running


@pytest.fixture
async def client(lb: Balancer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(lb.url) as session:
        yield session


async def until_in(lb: Balancer, *names: str) -> None:
    # In a thread, here and below: requests that are made meanwhile must not be kept waiting.
    await until(lambda: asyncio.to_thread(lambda: all(map(lb.is_in, names))), f"{names} get requests")


async def until_out(lb: Balancer, name: str) -> None:
    await until(lambda: asyncio.to_thread(lambda: not lb.is_in(name)), f"{name} gets no requests")


async def both_in(instances: list[Instance], lb: Balancer) -> None:
    await asyncio.gather(*(instance.start() for instance in instances))
    await until_in(lb, *NAMES)


async def create(client: aiohttp.ClientSession, name: str, amount: int) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with client.post("/api/coupons", json={"name": name, "amount": amount}, headers=headers) as answer:
        assert answer.status == 201


async def claim(client: aiohttp.ClientSession, user: str) -> tuple[int, str]:
    async with client.post("/api/coupons/claim", json={"user_id": user, "coupon_name": "SUMMER"}) as answer:
        return answer.status, await answer.text()


def sessions(lb: Balancer) -> float:
    return sum(lb.server_figure("haproxy_server_current_sessions", name) for name in NAMES)


def has_grown_to(answers: Sized, count: int) -> bool:
    return len(answers) > count


async def claim_alone(lb: Balancer, user: str) -> tuple[int, str]:
    async with aiohttp.ClientSession(lb.url) as fresh:
        return await claim(fresh, user)


def test_haproxy_accepts_the_configuration() -> None:
    assert PROGRAM is not None
    checked = subprocess.run([PROGRAM, "-c", "-f", CONFIGURATION], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr
    # Names that only Docker's DNS knows, and nothing else.
    warnings = [line for line in checked.stderr.splitlines() if line.startswith(("[WARNING]", "[ALERT]"))]
    assert all("could not resolve address 'app-" in line for line in warnings), warnings


async def test_both_instances_get_their_share(
    instances: list[Instance], lb: Balancer, client: aiohttp.ClientSession
) -> None:
    await both_in(instances, lb)
    await create(client, "SUMMER", 100)
    before = [lb.server_figure("haproxy_server_http_responses_total", name) for name in NAMES]
    answers = await asyncio.gather(*(claim(client, f"user-{number}") for number in range(40)))
    assert {status for status, _ in answers} == {201}
    after = [lb.server_figure("haproxy_server_http_responses_total", name) for name in NAMES]
    assert [late - early for early, late in zip(before, after, strict=True)] == [20, 20]


async def test_a_rolling_restart_under_load_loses_no_claim(
    instances: list[Instance], lb: Balancer, client: aiohttp.ClientSession
) -> None:
    await both_in(instances, lb)
    await create(client, "SUMMER", 100_000)
    numbers, answers, again, is_over = count(), [], [], asyncio.Event()

    async def keep_claiming() -> None:
        while not is_over.is_set():
            user = f"user-{next(numbers)}"
            try:
                answer = await claim(client, user)
            except aiohttp.ServerDisconnectedError:  # what becomes of the same on a connection that was used before
                answer = (502, "")
            if answer[0] == 502:
                # On a busy machine the load balancer may notice later than the drain notice ends. The same claim again
                # tells what became of it.
                again.append(answer)
                answer = await claim(client, user)
            answers.append(answer)

    load = [asyncio.create_task(keep_claiming()) for _ in range(8)]
    for instance in instances:
        await instance.terminate()
        await until_out(lb, instance.name)
        seen = len(answers)
        await until(partial(has_grown_to, answers, seen + 50), "claims go on")
        await instance.start()
        await until_in(lb, instance.name)
    is_over.set()
    await asyncio.gather(*load)
    statuses = Counter(status for status, _ in answers)
    assert statuses.keys() <= {201, 409}
    assert statuses[409] <= len(again) <= len(load)
    async with client.get("/api/coupons/SUMMER") as answer:
        assert (await answer.json())["remaining_amount"] == 100_000 - len(answers)


async def test_an_instance_that_is_not_ready_gets_nothing_until_it_is(
    instances: list[Instance],
    lb: Balancer,
    client: aiohttp.ClientSession,
    postgres: PostgresServer,
    template_database: str,
) -> None:
    with copy_of(postgres, template_database) as other_url, psycopg.connect(_plain(other_url)) as other:
        instances[1].settings["CLAIMSVC_DATABASE_URL"] = other_url
        await both_in(instances, lb)
        other.execute("UPDATE alembic_version SET version_num = '0000'")
        other.commit()
        await until_out(lb, "app-2")
        before = lb.server_figure("haproxy_server_sessions_total", "app-2")
        for _ in range(10):
            async with client.get("/readyz") as answer:
                assert answer.status == 200
        assert lb.server_figure("haproxy_server_sessions_total", "app-2") == before
        other.execute("UPDATE alembic_version SET version_num = %s", [_revision(postgres, template_database)])
        other.commit()
        await until_in(lb, "app-2")
        instances[1].kill()  # before its database goes


async def test_without_an_instance_callers_are_told_so_in_the_form_of_the_service(
    lb: Balancer, client: aiohttp.ClientSession
) -> None:
    await until(lambda: not lb.healthy(), "no instance is ready")
    async with client.post("/api/coupons/claim", json={"user_id": "ada", "coupon_name": "SUMMER"}) as answer:
        assert (answer.status, answer.content_type) == (503, "application/problem+json")
        assert answer.headers["Retry-After"] == "1"
        problem = await answer.json(content_type=None)
    assert (problem["type"], problem["status"]) == ("/problems/unavailable", 503)


async def test_a_claim_whose_instance_is_killed_is_not_sent_to_the_other_by_itself(
    instances: list[Instance], lb: Balancer, client: aiohttp.ClientSession, database_url: str
) -> None:
    await both_in(instances, lb)
    await create(client, "SUMMER", 5)
    with psycopg.connect(_plain(database_url)) as obstacle:
        obstacle.execute("SELECT FROM coupons FOR UPDATE")
        # On a connection of its own: where an earlier answer has come, HAProxy closes it without a word instead.
        pending = asyncio.create_task(claim_alone(lb, "ada"))
        await until(lambda: asyncio.to_thread(lambda: sessions(lb) == 1), "the claim has been sent")
        for instance in instances:
            instance.kill()
        status, body = await pending
    assert status == 502
    assert "/problems/unavailable" in body


SPELLED = (
    *("/metrics", "/%6detrics", "/%6D%65trics", "//metrics", "/./metrics", "/METRICS", "/metrics/", "/metrics?a=b"),
    *("/readyz?verbose", "/readyz?verbose=1", "/readyz?%76erbose", "/%72eadyz?verbose", "//readyz?a&verbose"),
    *("/console", "/c%6fnsole/", "/console/events", "/%63onsole/main.js", "/x/../metrics", "/x/%2e%2e/console"),
)


@pytest.mark.parametrize("is_apart", [True, False], ids=["apart", "on one port"])
async def test_pages_for_operators_are_not_reached_through_it_however_they_are_spelled(
    instances: list[Instance], lb: Balancer, is_apart: bool
) -> None:
    """The load balancer itself refuses them, also of instances that have no port for operators."""
    if not is_apart:
        for instance in instances:
            del instance.settings["CLAIMSVC_ADMIN_PORT"]
    await both_in(instances, lb)
    for target in SPELLED:
        async with connected(int(lb.url.rpartition(":")[2])) as wire:
            await wire.send(request("GET", target, Connection="close"))
            assert b" 404 " in await wire.reader.readuntil(b"\r\n"), target
    async with aiohttp.ClientSession(lb.url) as user, user.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok", "checks": {}})


async def test_operators_reach_the_console_and_nothing_else_on_their_port(
    instances: list[Instance], lb: Balancer
) -> None:
    await both_in(instances, lb)
    async with aiohttp.ClientSession(lb.operators_url) as operators:
        for path, status in {"/console": 200, "/console/main.js": 200, "/metrics": 404, "/api/coupons": 404}.items():
            async with operators.get(path) as answer:
                assert (path, answer.status) == (path, status)
        async with operators.get("/console/events") as stream:
            assert stream.status == 200
            assert await stream.content.readline()


async def test_a_client_cannot_forge_its_address(instances: list[Instance], lb: Balancer) -> None:
    for instance in instances:
        instance.settings["CLAIMSVC_QUOTA_ADDRESS"] = "5/60"
    await both_in(instances, lb)

    async def statuses_of(source: str) -> Counter[int]:
        found: Counter[int] = Counter()
        for number in range(12):
            async with connected(int(lb.url.rpartition(":")[2]), source=source) as wire:
                body = f'{{"user_id": "user-{number}", "coupon_name": "none"}}'.encode()
                forged = {"X_Forwarded_For": f"192.0.2.{number}", "Connection": "close"}
                await wire.send(request("POST", "/api/coupons/claim", body, **forged))
                answer = await wire.answer()
                assert answer is not None
                found[answer.status] += 1
        return found

    assert await statuses_of("127.0.0.2") == {404: 5, 429: 7}
    # And clients are told apart, although all of them come through it.
    assert await statuses_of("127.0.0.3") == {404: 5, 429: 7}


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


def _revision(postgres: PostgresServer, database: str) -> str:
    with psycopg.connect(_plain(postgres.url_of(database))) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row is not None
    return str(row[0])
