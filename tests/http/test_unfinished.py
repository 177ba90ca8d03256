"""Requests that have not arrived completely: what is kept of them is bounded, over all connections together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claimsvc.http.app import create_app
from claimsvc.http.server.arrival import ConnectionServer
from claimsvc.http.server.unfinished import UnfinishedRequests
from tests.http.gated import EXPRESS, ORDINARY, Gated, claim_of, gated, get
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.memory_store import MemoryStore
from tests.support.raw_http import Wire, connected, request
from tests.support.serving import Running, running
from tests.support.waiting import until

_HEADER = b"X-A: " + b"a" * 4000 + b"\r\n"
_HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
_UPLOAD = (
    b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 65000\r\n\r\n"
)


@pytest.fixture
async def small() -> AsyncIterator[Running]:
    """A service that keeps 200,000 bytes of unfinished requests."""
    store = MemoryStore()
    app = create_app(memory_services(store, Observations()))
    async with running(app, unfinished=UnfinishedRequests(200_000), header_timeout_seconds=20) as server:
        yield server


def kept_by(server: Running) -> int:
    found = server.runner.server
    assert isinstance(found, ConnectionServer)
    return found.unfinished.total_bytes


def refused_by(server: Running) -> int:
    return sum(each._rest is not None for each in server.connections)  # type: ignore[attr-defined]


async def trickle(wire: Wire, first: bytes, more: bytes, times: int) -> None:
    await wire.send(first)
    for _ in range(times):
        await wire.send(more)
        await asyncio.sleep(0.002)


async def test_the_headers_of_one_request_are_bounded_in_total(service: Service) -> None:
    async with connected(service.port) as wire:
        await trickle(wire, _HEAD, _HEADER, 25)
        answer = await wire.answer()
        assert answer is not None
        assert (answer.status, answer.problem["type"]) == (431, "/problems/headers-too-large")
        assert await wire.answer() is None


@pytest.mark.parametrize(("first", "more"), [(_HEAD, _HEADER), (_UPLOAD, b" " * 4000)], ids=["heads", "bodies"])
async def test_beyond_the_sum_the_largest_of_the_busiest_address_is_refused(
    small: Running, first: bytes, more: bytes
) -> None:
    """And nobody else: another address sends its request in parts as well, and completes it."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(connected(small.port, source="127.0.0.3"))
        await other.send(_HEAD + _HEADER)
        wires = [await stack.enter_async_context(connected(small.port, source="127.0.0.2")) for _ in range(8)]
        await asyncio.gather(*(trickle(wire, first, more, 10) for wire in wires))
        await until(lambda: kept_by(small) <= 200_000, "the sum is within its bound")
        await other.send(b"Connection: close\r\n\r\n")
        assert [each.status for each in await other.answers()] == [200]
        refused = 0
        for wire in wires:
            try:
                async with asyncio.timeout(0.2):
                    answer = await wire.answer()
            except TimeoutError:
                continue
            assert answer is not None
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            refused += "arriving in parts" in answer.problem["detail"]  # the others are late
        assert 3 <= refused <= 6  # 320 KB were sent
    await until(lambda: kept_by(small) == 0, "all of it is given back")


async def test_a_request_that_is_complete_counts_no_longer(small: Running) -> None:
    async with connected(small.port) as wire:
        for _ in range(30):
            await trickle(wire, _HEAD, _HEADER, 2)
            assert kept_by(small) > 0
            await wire.send(b"\r\n")
            answer = await wire.answer()
            assert answer is not None
            assert answer.status == 200
            assert kept_by(small) == 0


async def test_many_requests_at_once_are_no_unfinished_one() -> None:
    """They are taken off one after another, although they are more than one request may have bytes."""
    async with gated(header_timeout_seconds=20) as service, connected(service.server.port) as wire:
        requests = 3000
        sending = asyncio.ensure_future(wire.send(get("/livez") * requests + request(Connection="close")))
        assert [each.status for each in await wire.answers()] == [200] * (requests + 1)
        await sending


async def test_what_follows_a_claim_that_waits_is_refused_and_the_claim_is_answered() -> None:
    async with gated(header_timeout_seconds=20) as service, connected(service.server.port) as wire:
        await wire.send(claim_of("alice"))
        await service.store.asked.wait()
        await trickle(wire, _HEAD, _HEADER, 25)
        service.store.open.set()
        assert [each.status for each in await wire.answers()] == [201, 431]


_LONG_GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + (b"X-A: " + b"a" * 7900 + b"\r\n") * 7 + b"\r\n"
_LONG_POST = b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000


@asynccontextmanager
async def gated_small() -> AsyncIterator[Gated]:
    """A service whose claims wait, and which keeps 1,000,000 bytes of requests."""
    async with gated(header_timeout_seconds=20, unfinished=UnfinishedRequests(1_000_000)) as service:
        yield service


@pytest.mark.parametrize("following", [_LONG_GET, _LONG_POST], ids=["heads", "bodies"])
@pytest.mark.parametrize("content_type", [EXPRESS, ORDINARY])
async def test_complete_requests_that_wait_behind_one_are_counted_and_few(following: bytes, content_type: str) -> None:
    async with gated_small() as service, connected(service.server.port) as wire:
        await wire.send(claim_of("alice", content_type=content_type))
        await service.store.asked.wait()
        sending = asyncio.ensure_future(wire.send(following * 40))
        await until(lambda: kept_by(service.server) > 2 * 55_000, "two wait at least")
        [connection] = service.server.connections
        assert len(connection._messages) <= 2
        service.store.open.set()
        statuses = []
        for _ in range(41):
            answer = await wire.answer()
            assert answer is not None
            statuses.append(answer.status)
        await sending
        assert statuses[0] == 201
        assert len(set(statuses[1:])) == 1
        await until(lambda: kept_by(service.server) == 0, "all of it is given back")


@pytest.mark.parametrize("following", [_LONG_GET, _LONG_POST], ids=["heads", "bodies"])
async def test_complete_requests_that_wait_are_refused_beyond_the_sum_and_the_one_before_them_is_answered(
    following: bytes,
) -> None:
    async with gated_small() as service, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(service.server.port)) for _ in range(20)]
        await asyncio.gather(*(wire.send(claim_of(f"user-{n}")) for n, wire in enumerate(wires)))
        await until(lambda: service.store.waiting == 20, "all claims are under way")
        for wire in wires:
            await wire.send(following * 2)
        await until(lambda: refused_by(service.server) > 9, "some are refused")
        assert kept_by(service.server) <= 1_000_000
        for connection in service.server.connections:
            if connection._rest is not None:  # type: ignore[attr-defined]
                assert len(connection._messages) == 1  # the refusal: what waited is no longer in memory
        service.store.open.set()
        for wire in wires:
            first, second = await wire.answer(), await wire.answer()
            assert first is not None
            assert second is not None
            assert first.status in {201, 409}
            assert second.status in {200, 400, 408, 415}
            assert (second.status == 408) == (second.headers.get("connection") == "close")
        await until(lambda: kept_by(service.server) == 0, "all of it is given back")


@pytest.mark.parametrize("path", ["/api/coupons/claim", "/no/such"])
async def test_a_connection_whose_bodies_came_late_still_reads_requests_ahead(service: Service, path: str) -> None:
    """aiohttp's parser counts such a request for ever, and would leave the last ones of a batch unread."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n".encode()
    async with connected(service.port) as wire:
        for _ in range(5):
            await wire.send(head + b"{")
            await asyncio.sleep(0.02)
            await wire.send(b"}" + get("/livez") * 5)
            for _ in range(6):
                assert await wire.answer() is not None
        await wire.send(get("/livez") * 5)
        for _ in range(5):
            assert await wire.answer() is not None


_CHUNKED = (
    b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
)
_TRAILER = b"X-A: " + b"a" * 8000 + b"\r\n"


@pytest.mark.parametrize(
    ("first", "more"),
    [(_CHUNKED + b"0\r\n", _TRAILER), (_CHUNKED + b"1;a=", b"a" * 8000)],
    ids=["trailers", "extension"],
)
async def test_what_is_of_a_body_and_not_in_it_is_bounded(service: Service, first: bytes, more: bytes) -> None:
    async with connected(service.port) as wire:
        await trickle(wire, first, more, 12)
        answer = await wire.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (431, "close")
        assert await wire.answer() is None


async def test_trailers_count_and_are_refused_beyond_the_sum(small: Running) -> None:
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(small.port)) for _ in range(8)]
        await asyncio.gather(*(trickle(wire, _CHUNKED + b"0\r\n", _TRAILER, 6) for wire in wires))
        await until(lambda: 100_000 < kept_by(small) <= 200_000, "the sum is within its bound")
        await wires[0].send(b"\r\n")


async def test_small_trailers_are_taken_and_counted_no_longer(small: Running) -> None:
    async with connected(small.port) as wire:
        for _ in range(20):
            await trickle(wire, _CHUNKED + b"0\r\n", _TRAILER, 3)
            await until(lambda: kept_by(small) > 0, "they count")
            await wire.send(b"\r\n")
            answer = await wire.answer()
            assert answer is not None
            assert answer.status == 400
            assert kept_by(small) == 0


_KINDS = [
    get("/livez"),
    claim_of("alice"),
    claim_of("ben", content_type=ORDINARY),
    _CHUNKED + b"0\r\nX-A: b\r\n\r\n",
    b"POST /no/such HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
]


@settings(max_examples=40)
@given(
    kinds=st.lists(st.sampled_from(_KINDS), min_size=1, max_size=12),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 0.002])), max_size=8),
)
def test_however_requests_are_cut_each_is_answered_and_nothing_stays_counted(
    kinds: list[bytes], cuts: list[tuple[float, float]]
) -> None:
    data = b"".join(kinds)

    async def run() -> None:
        async with gated(header_timeout_seconds=20) as service, connected(service.server.port) as wire:
            service.store.open.set()
            start = 0
            for share, pause in sorted(cuts):
                await wire.send(data[start : int(share * len(data))])
                start = int(share * len(data))
                await asyncio.sleep(pause)
            await wire.send(data[start:])
            for _ in kinds:
                assert await wire.answer() is not None
            await until(lambda: kept_by(service.server) == 0, "nothing stays counted")

    asyncio.run(run())


class _Connection:
    def __init__(self) -> None:
        self.is_refused = False

    def refuse_unfinished(self) -> None:
        self.is_refused = True


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 60))))
def test_the_sum_is_that_of_those_not_refused_and_within_its_bound(changes: list[tuple[int, int, int]]) -> None:
    unfinished = UnfinishedRequests(100)
    connections: dict[tuple[int, int], _Connection] = {}
    kept: dict[tuple[int, int], int] = {}
    for address, number, size in changes:
        key = (address, number)
        connection = connections.setdefault(key, _Connection())
        if connection.is_refused:
            connection = connections[key] = _Connection()
        kept[key] = size
        before = {each: size for each, size in kept.items() if size}
        unfinished.keeps(connection, str(address), size)
        for each, other in connections.items():
            if other.is_refused and kept.pop(each, 0):
                of_its_address = [size for (owner, _), size in before.items() if owner == each[0]]
                assert sum(of_its_address) * len({owner for owner, _ in before}) >= 100
        assert unfinished.total_bytes == sum(kept.values()) <= 100


_IGNORED = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpGrade: h2c\r\n\r\n"
_IGNORED_CLAIM = claim_of("alice").replace(b"Host: h\r\n", b"Host: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n")


@pytest.mark.parametrize("asking", [_IGNORED, _IGNORED_CLAIM], ids=["a GET", "a claim"])
async def test_an_upgrade_that_is_ignored_keeps_its_connection(service: Service, asking: bytes) -> None:
    async with connected(service.port) as wire:
        for _ in range(2):
            await wire.send(asking)
            answer = await wire.answer()
            assert answer is not None
            assert (answer.status in {200, 201, 409}, answer.headers.get("connection")) == (True, None)


@pytest.mark.parametrize("asking", [_IGNORED, _IGNORED_CLAIM], ids=["a GET", "a claim"])
@pytest.mark.parametrize(
    "split", [None, -3, -1, 0, 20], ids=["whole", "in its end", "in its last byte", "after", "later"]
)
async def test_what_is_sent_behind_an_ignored_upgrade_is_answered_or_the_connection_says_that_it_ends(
    service: Service, asking: bytes, split: int | None
) -> None:
    """aiohttp drops what arrives together with it, and its client would wait for an answer without end."""
    data = asking + get("/readyz") + get("/livez")
    parts = [data] if split is None else [data[: len(asking) + split], data[len(asking) + split :]]
    async with connected(service.port) as wire:
        for part in parts:
            await wire.send(part)
            await asyncio.sleep(0.05)
        first = await wire.answer()
        assert first is not None
        assert first.status < 300
        if first.headers.get("connection") == "close":
            assert await wire.answer() is None
        else:
            assert [answer.status for answer in (await wire.answer(), await wire.answer()) if answer] == [200, 200]


async def test_a_request_hidden_in_what_was_dropped_is_not_carried_out(service: Service) -> None:
    """The head of a request is dropped with what arrives together with the upgrade; its body would be a request."""
    hidden = claim_of("mallory")
    head = b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    async with connected(service.port) as wire:
        await wire.send(_IGNORED + head % len(hidden))
        await asyncio.sleep(0.05)
        await wire.send(hidden)
        assert [answer.status for answer in await wire.answers()] == [200]
    assert [line["route"] for line in service.lines] == ["/livez"]
