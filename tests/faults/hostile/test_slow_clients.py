"""Row 18: clients that are slow on purpose are ended in time, and nobody else notices them."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from claimsvc.embedded import free_port
from tests.faults.hostile.conftest import LIMIT_SECONDS, Serve, Victim
from tests.support.raw_http import Wire, connected, request
from tests.support.waiting import until

pytestmark = pytest.mark.slow

# A machine that runs other tests besides is late itself.
SLACK_SECONDS = 8.0
CLAIM_HEAD = (
    b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
)
DRIPS = {
    "headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"),
    "one header": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ", b"b"),
    "body": (CLAIM_HEAD, b" "),
    "chunks": (CLAIM_HEAD.replace(b"Content-Length: 60000", b"Transfer-Encoding: chunked"), b"1\r\n \r\n"),
}


async def drip(wire: Wire, first: bytes, more: bytes) -> float:
    """Send a little, again and again, until the server ends it; the result is how long that took."""
    started = time.monotonic()
    ended = asyncio.ensure_future(wire.is_closed_after_answer())
    await wire.send(first)
    while not ended.done():
        await wire.send(more)
        await asyncio.sleep(0.1)
    await ended
    return time.monotonic() - started


@pytest.mark.parametrize(("first", "more"), DRIPS.values(), ids=DRIPS.keys())
async def test_whoever_sends_drop_by_drop_is_ended_all_the_same(victim: Victim, first: bytes, more: bytes) -> None:
    async with connected(victim.port) as wire:
        assert LIMIT_SECONDS * 0.9 <= await drip(wire, first, more) < LIMIT_SECONDS + SLACK_SECONDS
    assert [line["status"] for line in await victim.new_lines()] == [408]


@pytest.mark.parametrize("kind", ["headers", "body"])
async def test_five_hundred_of_them_are_ended_and_nobody_else_is_kept_waiting(victim: Victim, kind: str) -> None:
    first, more = DRIPS[kind]
    async with AsyncExitStack() as stack:
        drips = []
        for _ in range(500):
            # Each begins at once: a connection on which nothing has come in time is closed without an answer.
            wire = await stack.enter_async_context(connected(victim.port))
            await wire.send(first)
            drips.append(asyncio.create_task(drip(wire, b"", more)))
        dripping = asyncio.gather(*drips)
        waits = []
        while not dripping.done():
            started = time.monotonic()
            assert (await victim.ask("GET", "/api/coupons/plenty")).status == 200
            waits.append(time.monotonic() - started)
            await asyncio.sleep(0.05)
        slowest = max(await dripping)
    assert slowest < LIMIT_SECONDS + SLACK_SECONDS
    # The median says whether others are served; single ones wait for this machine, which also plays the 500.
    assert sorted(waits)[len(waits) // 2] < 0.5
    lines = await victim.new_lines()
    assert sum(line["status"] == 408 for line in lines) == 500


async def test_the_bound_on_unfinished_requests_is_one_for_both_ports(serve: Serve) -> None:
    """Each port is within it by itself; together they are not."""
    admin_port = free_port()
    victim = serve(
        CLAIMSVC_ADMIN_PORT=str(admin_port),
        CLAIMSVC_UNFINISHED_REQUESTS_BYTES="1048576",
        CLAIMSVC_HEADER_TIMEOUT_SECONDS="30",
    )
    part = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + (b"X-A: " + b"a" * 8000 + b"\r\n") * 7
    async with AsyncExitStack() as stack:
        refused: set[object] = set()
        for port in [victim.port] * 12 + [admin_port] * 12:
            wire = await stack.enter_async_context(connected(port))
            ended = asyncio.ensure_future(wire.is_closed_after_answer())
            stack.callback(ended.cancel)
            ended.add_done_callback(refused.add)
            await wire.send(part)
        await until(lambda: len(refused) >= 4, "those beyond it are refused")
        await asyncio.sleep(0.2)
        assert len(refused) <= 10
    assert await victim.is_healthy()


async def test_who_never_reads_is_not_answered_without_end(serve: Serve) -> None:
    """Its requests wait in its own socket: neither memory nor processor time is spent on them."""
    victim = serve(CLAIMSVC_WRITE_TIMEOUT_SECONDS="300")

    def answered() -> int:
        return victim.program.raw_stderr().count(b'"route":"/livez"')

    async with connected(victim.port) as wire:
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        sending = asyncio.ensure_future(wire.send(request() * 150_000))
        before = -1
        while answered() > before:
            before = answered()
            assert (await victim.ask("GET", "/api/coupons/plenty")).status == 200
            await asyncio.sleep(1)
        # As many as fit into the sockets' buffers, which the kernel lets grow to a few megabytes.
        assert 0 < before < 50_000
        sending.cancel()
    assert await victim.is_healthy()


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_who_does_not_read_its_answer_is_ended(victim: Victim, connection: str) -> None:
    """Also when everything is written and only the closing of the connection waits for it."""
    async with connected(victim.port) as wire:
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(request("GET", "/docs/swagger-ui-bundle.js", Connection=connection) * 8)
        await until(lambda: victim.connections() > 0, "the connection is accepted")
        limit = LIMIT_SECONDS + SLACK_SECONDS
        await until(lambda: victim.connections() == 0, "the connection is ended", within_seconds=limit)
    assert await victim.is_healthy()


async def test_who_reads_slowly_gets_all_of_its_answer(victim: Victim) -> None:
    async with connected(victim.port) as wire:
        wire.writer.get_extra_info("socket").setsockopt(1, 8, 65_536)  # SO_RCVBUF
        await wire.send(request("GET", "/docs/swagger-ui-bundle.js", Connection="close"))
        received, started = 0, time.monotonic()
        while data := await wire.reader.read(40_000):
            received += len(data)
            await asyncio.sleep(0.07)
        assert received > 1_000_000
        assert time.monotonic() - started > 2 * LIMIT_SECONDS


async def test_an_idle_connection_is_none_of_those(victim: Victim) -> None:
    """A client may rest between two requests for longer than any of these limits."""
    async with connected(victim.port) as wire:
        for _ in range(2):
            await wire.send(request())
            answer = await wire.answer()
            assert answer is not None
            assert answer.status == 200
            await asyncio.sleep(LIMIT_SECONDS * 2.5)
        await wire.send(request(Connection="close"))
        assert [answer.status for answer in await wire.answers()] == [200]
