"""Everything that can hang has a limit, seen from outside: what a client is answered, and when."""

import asyncio
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from claimsvc import bootstrap
from claimsvc.embedded import PostgresServer, embedded_services, temporary_state_dir
from tests.faults.hostile.conftest import Serve, Victim, serving
from tests.support.proxy import proxy_to
from tests.support.raw_http import Answer, connected, request
from tests.support.waiting import until

pytestmark = pytest.mark.slow

_PATIENT_DATABASE = {f"CLAIMSVC_DATABASE_{what}_TIMEOUT_SECONDS": "30" for what in ("LOCK", "STATEMENT")}


def claim(user: str, coupon: str = "plenty") -> bytes:
    body = f'{{"user_id": "{user}", "coupon_name": "{coupon}"}}'.encode()
    return request("POST", "/api/coupons/claim", body, Connection="close")


async def answered(victim: Victim, data: bytes) -> tuple[Answer, float]:
    started = time.monotonic()
    async with connected(victim.port) as wire:
        await wire.send(data)
        answer = await wire.answer()
    assert answer is not None
    return answer, time.monotonic() - started


def hold_the_coupon(victim: Victim) -> psycopg.Connection[tuple[object, ...]]:
    holder = psycopg.connect(victim.database_url)
    holder.execute("SELECT FROM coupons WHERE name = 'plenty' FOR UPDATE")
    return holder


async def waiting_for_the_row(victim: Victim) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: victim.database.execute(waiting).fetchone(), "a session waits for the row")


def is_unavailable(answer: Answer) -> bool:
    return (answer.status, answer.problem["type"]) == (503, "/problems/unavailable") and bool(
        answer.headers["retry-after"]
    )


@pytest.mark.parametrize("known", [True, False], ids=["a coupon claimed before", "a coupon not claimed yet"])
async def test_a_claim_is_not_waited_for_past_its_limit_and_may_have_succeeded(serve: Serve, known: bool) -> None:
    victim = serve(CLAIMSVC_CLAIM_TIMEOUT_SECONDS="1", **_PATIENT_DATABASE)
    if known:
        assert (await answered(victim, claim("first")))[0].status == 201
    with hold_the_coupon(victim) as holder:
        answer, seconds = await answered(victim, claim("ann"))
        assert is_unavailable(answer)
        assert "repeat it to learn its outcome" in answer.problem["detail"]
        assert 0.9 <= seconds < 4
        holder.rollback()
    again, _ = await answered(victim, claim("ann"))
    # Its batch went on when it could: the answer that was not waited for is told to whoever asks again.
    assert (again.status, again.problem["type"]) == (409, "/problems/already-claimed")
    assert victim.stored()[2] == 1 + known


async def test_a_free_connection_to_postgresql_is_waited_for_no_longer_than_its_limit(serve: Serve) -> None:
    pool = {"CLAIMSVC_DATABASE_POOL_SIZE": "1", "CLAIMSVC_DATABASE_POOL_TIMEOUT_SECONDS": "0.5"}
    victim = serve(**pool, **_PATIENT_DATABASE)
    with hold_the_coupon(victim) as holder:
        claiming = asyncio.ensure_future(answered(victim, claim("ann")))
        await waiting_for_the_row(victim)
        for data in (claim("ann", "last"), request("GET", "/api/claims/01a22c52-3a5e-7166-8e64-18c61f0d468d")):
            answer, seconds = await answered(victim, data)
            assert is_unavailable(answer)
            assert "every connection" in answer.problem["detail"]
            assert 0.4 <= seconds < 4
        assert (await answered(victim, request("GET", "/api/coupons/last")))[0].status == 200
        holder.rollback()
        assert (await claiming)[0].status == 201
    assert (await answered(victim, claim("ann", "last")))[0].status == 201


async def test_a_free_connection_for_reads_is_waited_for_no_longer_than_its_limit(serve: Serve) -> None:
    pool = {"CLAIMSVC_DATABASE_READ_POOL_SIZE": "1", "CLAIMSVC_DATABASE_READ_POOL_TIMEOUT_SECONDS": "0.5"}
    victim = serve(**pool, **_PATIENT_DATABASE)
    with psycopg.connect(victim.database_url) as holder:
        holder.execute("LOCK TABLE campaigns IN ACCESS EXCLUSIVE MODE")
        listing = asyncio.ensure_future(answered(victim, request("GET", "/api/coupons")))
        await waiting_for_the_row(victim)
        answer, seconds = await answered(victim, request("GET", "/api/coupons/last"))
        assert is_unavailable(answer)
        assert "every connection" in answer.problem["detail"]
        assert 0.4 <= seconds < 4
        holder.rollback()
        assert (await listing)[0].status == 200


async def test_a_new_connection_to_postgresql_is_waited_for_no_longer_than_its_limit(
    serve: Serve, postgres: PostgresServer
) -> None:
    """The network loses whatever PostgreSQL says, after it has cut off what was connected."""
    async with proxy_to("127.0.0.1", postgres.port) as proxy:
        limit = {"CLAIMSVC_DATABASE_CONNECT_TIMEOUT_SECONDS": "2"}
        victim = await asyncio.to_thread(serve, database_port=proxy.port, **limit)
        proxy.is_silent = True
        assert proxy.reset()
        for data in (claim("ann"), request("GET", "/api/coupons/plenty")):
            answer, seconds = await answered(victim, data)
            assert is_unavailable(answer)
            assert 1.5 <= seconds < 6
        proxy.is_silent = False
        assert (await answered(victim, claim("ann")))[0].status == 201


async def test_a_stopping_service_says_farewell_to_connections_that_rest(serve: Serve) -> None:
    """They may ask once more, are told that it stops, and are not cut off with a request on its way."""
    victim = serve()
    async with connected(victim.port) as resting, connected(victim.port) as asking, connected(victim.port) as claiming:
        for wire in (resting, asking, claiming):
            await wire.send(request())
            assert await wire.answer() is not None
        victim.program.process.send_signal(signal.SIGTERM)
        await until(lambda: not victim.listens(), "the listener is closed")
        await asking.send(request("GET", "/readyz?verbose"))
        ready = await asking.answer()
        assert ready is not None
        assert (ready.status, ready.headers["connection"]) == (503, "close")
        assert ready.problem["checks"]["claimsvc"]["status"] == "down"
        assert ready.headers["retry-after"]
        await claiming.send(claim("late").replace(b"Connection: close\r\n", b""))
        made = await claiming.answer()
        assert made is not None
        assert (made.status, made.headers["connection"]) == (201, "close")
        assert await asking.answer() is await claiming.answer() is await resting.answer() is None
    assert victim.program.process.wait(20) == 0


async def test_a_client_that_keeps_a_connection_busy_fails_no_request_when_the_service_stops(serve: Serve) -> None:
    victim = serve()
    stopping = asyncio.Event()

    counts = dict.fromkeys(range(16), 0)

    async def ask_again_and_again(number: int) -> None:
        """Until an answer says that it was the connection's last."""
        async with connected(victim.port) as wire:
            for _ in range(100_000):
                await wire.send(claim(f"user-{number}-{counts[number]}").replace(b"Connection: close\r\n", b""))
                answer = await wire.answer()
                assert answer is not None, "cut off without an answer"
                assert answer.status in (201, 409)
                if answer.headers.get("connection") == "close":
                    assert stopping.is_set()
                    return
                counts[number] += 1

    clients = [asyncio.ensure_future(ask_again_and_again(number)) for number in counts]
    await until(lambda: min(counts.values()) > 20, "every client is at work")
    stopping.set()
    victim.program.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    assert victim.program.process.wait(20) == 0


@dataclass(frozen=True, slots=True)
class OnItsOwn:
    """A service on servers that no other test uses."""

    postgres: PostgresServer
    victim: Victim

    async def claims(self, user: str, coupon: str = "plenty") -> bool:
        return (await answered(self.victim, claim(user, coupon)))[0].status != 503


@pytest.fixture
def on_its_own(tmp_path: Path) -> Iterator[OnItsOwn]:
    with temporary_state_dir() as state_dir, embedded_services(state_dir, masters=1) as servers:
        assert servers.postgres is not None
        bootstrap.migrate(servers.postgres.url_of("postgres"))
        with serving(servers, "postgres", tmp_path) as serve:
            yield OnItsOwn(servers.postgres, serve())


async def test_probes_and_claims_are_answered_in_time_while_postgresql_is_frozen(on_its_own: OnItsOwn) -> None:
    postgres, victim = on_its_own.postgres, on_its_own.victim
    postgres.pause()
    try:

        async def is_not_ready() -> bool:
            answer, seconds = await answered(victim, request("GET", "/readyz"))
            assert seconds < 9
            return answer.status == 503

        # What it says may be a second old.
        await until(is_not_ready, "it is not ready", within_seconds=9)
        for path, status in (("/livez", 200), ("/metrics", 200), ("/readyz", 503), ("/api/coupons/plenty", 503)):
            answer, seconds = await answered(victim, request("GET", path))
            assert answer.status == status
            assert seconds < 9
        answer, seconds = await answered(victim, claim("ann"))
        assert answer.status == 503
        assert seconds < 14
    finally:
        postgres.resume()
    await until(lambda: on_its_own.claims("ann"), "claims are decided again", within_seconds=25)


async def test_a_restart_of_postgresql_costs_no_claim_that_comes_after_it(on_its_own: OnItsOwn) -> None:
    """Neither the first of a coupon, nor one of a coupon that is known, nor one of a coupon that is sold out."""
    ask = partial(answered, on_its_own.victim)
    on_its_own.victim.database.execute(
        "INSERT INTO coupons (name, amount, remaining_amount, strategy) VALUES ('first', 1, 1, 'redlock')"
    )
    for coupon in ("plenty", "last"):
        assert (await ask(claim("ann", coupon)))[0].status == 201
    assert (await ask(claim("bob", "last")))[0].status == 409
    await asyncio.to_thread(on_its_own.postgres.kill)
    await asyncio.to_thread(on_its_own.postgres.start)
    answers = [(await ask(claim("cleo", coupon)))[0].status for coupon in ("first", "plenty", "last")]
    assert answers == [201, 201, 409]
