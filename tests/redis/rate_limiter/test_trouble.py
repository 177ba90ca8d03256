"""Masters that hang, are gone, forget or are slow cost a claim nothing that its quota would have let through."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from claimsvc.embedded import ValkeyServer, embedded_services, temporary_state_dir
from tests.redis.rate_limiter.quota_service import REDIS_TIMEOUT_SECONDS, SOON_SECONDS, quotas_on, service
from tests.support.databases import NOWHERE
from tests.support.injectors.masters import OUT_OF_MEMORY, READ_ONLY, MasterFault, client_of
from tests.support.proxy import proxy_to
from tests.support.waiting import until


@pytest.fixture(scope="module")
def masters() -> Iterator[tuple[ValkeyServer, ...]]:
    """Masters that these tests may pause and kill; each test leaves them running."""
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url=NOWHERE) as running,
    ):
        yield running.masters


@pytest.fixture(autouse=True)
def emptied(masters: tuple[ValkeyServer, ...]) -> None:
    for master in masters:
        with client_of(master) as client:
            client.flushall()


def urls(masters: Sequence[ValkeyServer]) -> list[str]:
    return [master.url for master in masters]


def pause(masters: Sequence[ValkeyServer]) -> None:
    for master in masters:
        master.pause()


def kill(masters: Sequence[ValkeyServer]) -> None:
    for master in masters:
        master.kill()


def mend(masters: Sequence[ValkeyServer]) -> None:
    for master in masters:
        if master.running:
            master.resume()
        master.start()


@pytest.mark.parametrize("break_all", [pause, kill], ids=["hang", "are gone"])
async def test_claims_go_on_while_all_masters_are_broken_and_are_counted_again_afterwards(
    masters: tuple[ValkeyServer, ...], database_url: str, break_all: Callable[[Sequence[ValkeyServer]], None]
) -> None:
    """Of coupons that need no master themselves."""
    coupons = [f"coupon-{number}" for number in range(8)]
    async with service(database_url, urls(masters), quota_user="100/3600", quota_address="100/3600") as client:
        await client.offer(*coupons)
        status, _, headers = await client.claim("spring", "ada")
        assert (status, headers["RateLimit"].count(";r=99;")) == (201, 2)
        break_all(masters)
        try:
            begun = time.monotonic()
            answers = await asyncio.gather(*(client.claim(coupon, "ada") for coupon in coupons))
            assert time.monotonic() - begun < SOON_SECONDS < REDIS_TIMEOUT_SECONDS
            assert [status for status, _, _ in answers] == [201] * len(coupons)
            assert not any("RateLimit" in headers for _, _, headers in answers)
            assert {headers["RateLimit-Policy"] for _, _, headers in answers} == {
                '"address";q=100;w=3600, "user";q=100;w=3600'
            }
            unknown = await client.metric('claimsvc_quota_decisions_total{policy="user",result="unknown"}')
            assert unknown == len(coupons)
        finally:
            mend(masters)

        async def is_counted() -> bool:
            _, _, headers = await client.claim("spring", "ada")
            return str(headers.get("RateLimit", "")).count(";r=") == 2

        await until(is_counted, "the masters are asked again")


async def test_while_a_master_hangs_only_the_first_wait_for_it(masters: tuple[ValkeyServer, ...]) -> None:
    """From then on nobody does, until it answers; not even as long as a master that is well may take."""
    async with quotas_on(urls(masters[:1])) as (quotas, decided):
        assert len(await quotas.take({"user": "ada"})) == 1
        masters[0].pause()
        try:
            begun = time.monotonic()
            assert await quotas.take({"user": "ada"}) == []
            first_seconds = time.monotonic() - begun
            begun = time.monotonic()
            for _ in range(200):
                assert await quotas.take({"user": "ada"}) == []
            assert time.monotonic() - begun < SOON_SECONDS
            assert 0.04 < first_seconds < SOON_SECONDS
        finally:
            masters[0].resume()
        assert decided.results["user", "unknown"] == 201

        async def is_known() -> bool:
            return bool(await quotas.take({"user": "ada"}))

        await until(is_known, "it is asked again")


async def test_a_slow_master_is_not_waited_for_and_those_in_line_behind_it_are_let_go(
    masters: tuple[ValkeyServer, ...],
) -> None:
    async with (
        proxy_to("127.0.0.1", masters[0].port) as proxy,
        quotas_on([f"redis://127.0.0.1:{proxy.port}"]) as (quotas, _),
    ):
        assert await quotas.take({"user": "slow"})
        proxy.delay_seconds = 1.5 * SOON_SECONDS
        begun = time.monotonic()
        asked = [asyncio.create_task(quotas.take({"user": "slow"}))]
        await asyncio.sleep(0)
        asked += [asyncio.create_task(quotas.take({"user": f"behind-{number}"})) for number in range(50)]
        assert await asyncio.gather(*asked) == [[]] * 51
        assert time.monotonic() - begun < SOON_SECONDS
        proxy.delay_seconds = 0


async def test_a_master_that_forgets_everything_counts_from_the_beginning(masters: tuple[ValkeyServer, ...]) -> None:
    async with quotas_on(urls(masters)) as (quotas, decided):
        for _ in range(2):
            for master in masters:
                with client_of(master) as client:
                    client.flushall()
                    client.script_flush()
            for remaining in (4, 3, 2, 1, 0):
                assert [each.remaining for each in await quotas.take({"user": "ada"})] == [remaining]
        assert decided.results == {("user", "allowed"): 10}


@pytest.mark.parametrize("fault", [OUT_OF_MEMORY, READ_ONLY], ids=lambda fault: fault.name)
async def test_a_master_that_takes_no_writes_lets_everybody_through(
    masters: tuple[ValkeyServer, ...], fault: MasterFault
) -> None:
    async with quotas_on(urls(masters[:1])) as (quotas, _):
        fault.inflict(masters[0])
        try:
            assert await quotas.take({"user": "ada"}) == []
        finally:
            fault.heal(masters[0])
        assert [each.remaining for each in await quotas.take({"user": "ada"})] == [4]


async def test_what_waits_when_the_service_ends_is_let_go(masters: tuple[ValkeyServer, ...]) -> None:
    async with quotas_on(urls(masters[:1]), timeout_seconds=0.3) as (quotas, _):
        assert len(await quotas.take({"user": "ada"})) == 1
        masters[0].pause()
        try:
            asked = asyncio.create_task(quotas.take({"user": "ada"}))
            await asyncio.sleep(0)
            begun = time.monotonic()
            await quotas.drain()
            assert await asked == []
            assert time.monotonic() - begun < SOON_SECONDS
        finally:
            masters[0].resume()
