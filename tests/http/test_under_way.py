"""The cap on claims under way of each address: what exceeds it waits, and keeps nobody else from claiming."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from claimsvc.domain import StrategyName
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_app
from claimsvc.http.server.under_way import UnderWay
from tests.http.gated import EXPRESS, ORDINARY, Gate, Gated, claim_of
from tests.http.memory_services import Observations, memory_services
from tests.support.raw_http import Wire, connected
from tests.support.serving import running
from tests.support.waiting import until

_PROXIES = (ip_network("127.0.0.9"),)


@asynccontextmanager
async def capped(most: int, timeout_seconds: float = 20.0) -> AsyncIterator[Gated]:
    """A service whose claims wait in its store, with so many places for each address."""
    store, observations = Gate(), Observations()
    await store.create_coupon("plenty", 100, StrategyName.REDLOCK)
    under_way = UnderWay(most, _PROXIES, timeout_seconds=timeout_seconds)
    services = memory_services(store, observations, under_way=under_way, trusted_proxies=_PROXIES)
    async with running(create_app(services), header_timeout_seconds=20) as server:
        yield Gated(server, store, observations)


def waiting_in(service: Gated) -> int:
    """How many claims the store has been asked for, and not answered."""
    return service.store.waiting


async def ask(stack: AsyncExitStack, service: Gated, source: str, data: bytes) -> Wire:
    wire = await stack.enter_async_context(connected(service.server.port, source=source))
    await wire.send(data)
    return wire


@pytest.mark.parametrize("content_type", [EXPRESS, ORDINARY])
async def test_what_exceeds_the_cap_waits_and_other_addresses_do_not(content_type: str) -> None:
    async with capped(2) as service, AsyncExitStack() as stack:
        wires = [await ask(stack, service, "127.0.0.2", claim_of(f"u{n}", content_type=content_type)) for n in range(6)]
        await until(lambda: waiting_in(service) == 2, "two claims are under way")
        wires.append(await ask(stack, service, "127.0.0.3", claim_of("other", content_type=content_type)))
        await until(lambda: waiting_in(service) == 3, "another address claims")
        await asyncio.sleep(0.1)
        assert waiting_in(service) == 3
        service.store.open.set()
        for wire in wires:
            answer = await wire.answer()
            assert answer is not None
            assert answer.status == 201


async def test_who_hangs_up_gives_its_place_back_when_its_claim_has_ended() -> None:
    async with capped(1) as service, AsyncExitStack() as stack:
        async with connected(service.server.port, source="127.0.0.2") as gone:
            await gone.send(claim_of("gone"))
            await until(lambda: waiting_in(service) == 1, "a claim is under way")
            async with connected(service.server.port, source="127.0.0.2") as also_gone:
                await also_gone.send(claim_of("also-gone"))
                await asyncio.sleep(0.05)
        wire = await ask(stack, service, "127.0.0.2", claim_of("next"))
        service.store.open.set()
        answer = await wire.answer()
        assert answer is not None
        assert answer.status == 201


async def test_a_place_is_waited_for_no_longer_than_its_limit() -> None:
    async with capped(1, timeout_seconds=0.1) as service, AsyncExitStack() as stack:
        await ask(stack, service, "127.0.0.2", claim_of("first"))
        await until(lambda: waiting_in(service) == 1, "a claim is under way")
        wire = await ask(stack, service, "127.0.0.2", claim_of("late"))
        answer = await wire.answer()
        assert answer is not None
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        service.store.open.set()


async def test_a_trusted_proxy_has_no_cap_and_its_clients_have_theirs() -> None:
    async with capped(1) as service, AsyncExitStack() as stack:
        for n in range(3):
            await ask(stack, service, "127.0.0.9", claim_of(f"p{n}"))
        await until(lambda: waiting_in(service) == 3, "the proxy's own claims are under way")
        for n in range(3):
            forwarded = claim_of(f"c{n}").replace(b"Host: h\r\n", b"Host: h\r\nX-Forwarded-For: 192.0.2.1\r\n")
            await ask(stack, service, "127.0.0.9", forwarded)
        await until(lambda: waiting_in(service) == 4, "one of its client's claims is under way")
        await asyncio.sleep(0.1)
        assert waiting_in(service) == 4
        service.store.open.set()


_TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "192.168.0.0/16", "fd00::/8")))


@pytest.mark.parametrize(
    ("peer", "forwarded", "capped_address"),
    [
        ("10.0.0.2", None, None),
        ("10.0.0.2", "", None),
        ("10.0.0.2", "unknown", None),
        ("10.0.0.2", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.2", "192.168.1.5", "192.168.1.5"),
        ("10.0.0.2", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.2", "192.168.1.5, 10.0.0.3", "192.168.1.5"),
        ("10.0.0.2", "unknown, 10.0.0.3", "10.0.0.3"),
        ("fd00::2", "fd00:1::5", "fd00:1::/64"),
        ("192.0.2.9", "10.0.0.7", "192.0.2.9"),
        (None, "192.0.2.1", None),
    ],
)
def test_only_a_trusted_proxy_that_names_no_client_has_no_cap(
    peer: str | None, forwarded: str | None, capped_address: str | None
) -> None:
    """Compose trusts all private networks, which are those of its clients too."""
    headers = CIMultiDictProxy(CIMultiDict({} if forwarded is None else {"X-Forwarded-For": forwarded}))
    assert UnderWay(1, _TRUSTED, timeout_seconds=1).address_of(peer, headers) == capped_address


async def test_a_client_whose_own_address_is_trusted_has_a_cap() -> None:
    async with capped(1) as service, AsyncExitStack() as stack:
        for n in range(3):
            forwarded = claim_of(f"c{n}").replace(b"Host: h\r\n", b"Host: h\r\nX-Forwarded-For: 127.0.0.9\r\n")
            await ask(stack, service, "127.0.0.9", forwarded)
        await until(lambda: waiting_in(service) == 1, "one of its claims is under way")
        await asyncio.sleep(0.1)
        assert waiting_in(service) == 1
        service.store.open.set()


@given(
    most=st.integers(1, 3),
    claims=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 4), st.booleans()), max_size=30),
)
def test_whoever_gives_up_no_place_is_lost_and_no_address_has_more(
    most: int, claims: list[tuple[str | None, int, bool]]
) -> None:
    async def run() -> None:
        under_way = UnderWay(most, (), timeout_seconds=0.004)
        inside: dict[str | None, int] = {}

        async def claim(address: str | None, steps: int) -> None:
            async with under_way.place(address):
                inside[address] = inside.get(address, 0) + 1
                assert address is None or inside[address] <= most
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0.001)
                finally:
                    inside[address] -= 1

        tasks = []
        for address, steps, is_cancelled in claims:
            tasks.append(asyncio.create_task(claim(address, steps)))
            if is_cancelled:
                await asyncio.sleep(0)
                tasks[-1].cancel()
        for (address, *_), ended in zip(claims, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            assert ended is None or isinstance(ended, UnavailableError | asyncio.CancelledError), (address, ended)
        assert (under_way._taken, {key: line for key, line in under_way._lines.items() if line}) == ({}, {})

    asyncio.run(run())
