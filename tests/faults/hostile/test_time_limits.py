"""Everything that can hang has a limit, seen from outside: what a client is answered, and when."""

import asyncio
import signal
import time
from pathlib import Path

import psycopg
import pytest

from claimsvc import bootstrap
from claimsvc.embedded import embedded_services, temporary_state_dir
from tests.faults.hostile.conftest import Serve, Victim, serving
from tests.faults.hostile.wire import Answer, connected, request

_PATIENT_DATABASE = {f"CLAIMSVC_DATABASE_{what}_TIMEOUT_SECONDS": "30" for what in ("LOCK", "STATEMENT")}


def claim(user: str) -> bytes:
    return request(
        "POST", "/api/coupons/claim", f'{{"user_id": "{user}", "coupon_name": "plenty"}}'.encode(), Connection="close"
    )


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
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while victim.database.execute(waiting).fetchone() is None:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("known", [True, False], ids=["a coupon claimed before", "a coupon not claimed yet"])
async def test_a_claim_is_not_waited_for_past_its_limit_and_may_have_succeeded(serve: Serve, known: bool) -> None:
    victim = serve(CLAIMSVC_CLAIM_TIMEOUT_SECONDS="1", **_PATIENT_DATABASE)
    if known:
        assert (await answered(victim, claim("first")))[0].status == 201
    with hold_the_coupon(victim) as holder:
        answer, seconds = await answered(victim, claim("ann"))
        assert (answer.status, answer.problem["type"]) == (503, "/problems/unavailable")
        assert "the same claim again tells its outcome" in answer.problem["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert 0.9 <= seconds < 4
        holder.rollback()
    again, _ = await answered(victim, claim("ann"))
    # Its batch went on when it could: the answer that was not waited for is told to whoever asks again.
    assert (again.status, again.problem["type"]) == (409, "/problems/already-claimed")
    assert victim.stored()[2] == 1 + known


async def test_a_stopping_service_says_farewell_to_connections_that_rest(serve: Serve) -> None:
    """They may ask once more, are told that it stops, and are not cut off with a request on its way."""
    victim = serve()
    async with connected(victim.port) as resting, connected(victim.port) as asking, connected(victim.port) as claiming:
        for wire in (resting, asking, claiming):
            await wire.send(request())
            assert await wire.answer() is not None
        victim.program.process.send_signal(signal.SIGTERM)
        while victim.listens():
            await asyncio.sleep(0.01)
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

    async def ask_again_and_again(number: int) -> int:
        """How many claims were answered, until an answer says that it was the connection's last."""
        async with connected(victim.port) as wire:
            for count in range(100_000):
                await wire.send(claim(f"user-{number}-{count}").replace(b"Connection: close\r\n", b""))
                answer = await wire.answer()
                assert answer is not None, "cut off without an answer"
                assert answer.status in (201, 409)
                if answer.headers.get("connection") == "close":
                    assert stopping.is_set()
                    return count
            return 0

    clients = [asyncio.ensure_future(ask_again_and_again(number)) for number in range(16)]
    await asyncio.sleep(1)
    stopping.set()
    victim.program.process.send_signal(signal.SIGTERM)
    assert min(await asyncio.gather(*clients)) > 1
    assert victim.program.process.wait(20) == 0


async def test_probes_and_claims_are_answered_in_time_while_postgresql_is_frozen(tmp_path: Path) -> None:
    with temporary_state_dir() as state_dir, embedded_services(state_dir, masters=1, durable=False) as servers:
        assert servers.postgres is not None
        await asyncio.to_thread(bootstrap.migrate, servers.postgres.url_of("postgres"))
        with serving(servers, "postgres", tmp_path) as serve:
            victim = serve()
            servers.postgres.pause()
            try:
                for path, status in (
                    ("/livez", 200),
                    ("/metrics", 200),
                    ("/readyz", 503),
                    ("/api/coupons/plenty", 503),
                ):
                    answer, seconds = await answered(victim, request("GET", path))
                    assert answer.status == status
                    assert seconds < 9
                answer, seconds = await answered(victim, claim("ann"))
                assert answer.status == 503
                assert seconds < 14
            finally:
                servers.postgres.resume()
            deadline = time.monotonic() + 25
            while (await answered(victim, claim("ann")))[0].status == 503:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
