"""What goes on in the background gives up on a server that hangs, and is whole again at the next pass."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest

from claimsvc import bootstrap
from claimsvc.bootstrap import sample_stock_once
from claimsvc.domain import Claimed, StrategyName
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.errors import UnavailableError
from claimsvc.jobs import reconcile, repeated
from claimsvc.observability.metrics import Metrics
from claimsvc.redis.counters import RedisCounters
from claimsvc.redis.masters import open_masters
from tests.support.storage import create_coupon
from tests.support.strategy_instances import open_instance
from tests.support.waiting import until

# The unit of work, and the pool besides; or each master's half second.
_LIMIT_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Passes:
    """Both kinds of pass, over the coupon `spring` of 10, of which 9 are left and the counter says 3."""

    sample: Callable[[], Awaitable[object]]
    reconcile: Callable[[], Awaitable[object]]
    metrics: Metrics
    counters: RedisCounters

    async def both_did_their_work(self) -> bool:
        with suppress(UnavailableError):  # the master is not known to be up again yet
            is_sampled = b'claimsvc_coupon_remaining{coupon="spring"} 9.0' in self.metrics.render()[0]
            return is_sampled and await self.counters.count("spring") is None
        return False


@pytest.fixture
def servers() -> Iterator[EmbeddedServices]:
    """Servers that a test may pause."""
    with temporary_state_dir() as state, embedded_services(state, masters=1, durable=False) as running:
        yield running


@pytest.fixture
async def passes(servers: EmbeddedServices) -> AsyncIterator[Passes]:
    assert servers.postgres is not None
    url, metrics = servers.postgres.url_of("postgres"), Metrics()
    await asyncio.to_thread(bootstrap.migrate, url)
    async with (
        open_instance(StrategyName.COUNTER, url.replace(":", "+psycopg:", 1), servers.redis_urls) as instance,
        open_masters(servers.redis_urls, timeout_seconds=0.5, pool_size=4, observer=metrics) as masters,
    ):
        storage, counters = instance.storage, RedisCounters(masters.all)
        await create_coupon(storage, "spring", 10, StrategyName.COUNTER)
        assert isinstance(await instance.strategy.claim("spring", "ada"), Claimed)
        await counters.forget("spring", 9)
        await counters.learn("spring", 3)
        metrics.coupons.count("spring")  # which makes it one of those whose stock is shown

        async def reconcile_all() -> None:
            async for _ in reconcile(storage.coupons, counters, settle_seconds=0.01, observe=metrics.counter_drifted):
                pass

        yield Passes(
            lambda: sample_stock_once(storage.coupons, metrics),
            reconcile_all,
            metrics,
            counters,
        )


async def gives_up(run_once: Callable[[], Awaitable[object]]) -> str:
    """What a pass did not get an answer of, within the limit."""
    async with asyncio.timeout(_LIMIT_SECONDS):
        with pytest.raises(UnavailableError) as given_up:
            await run_once()
    return given_up.value.dependency


async def test_a_pass_gives_up_on_a_postgresql_that_hangs_and_the_next_one_is_whole(
    servers: EmbeddedServices, passes: Passes
) -> None:
    assert servers.postgres is not None
    servers.postgres.pause()
    try:
        given_up = await asyncio.gather(gives_up(passes.sample), gives_up(passes.reconcile))
    finally:
        servers.postgres.resume()
    assert list(given_up) == ["postgresql", "postgresql"]
    assert not await passes.both_did_their_work()
    await passes.sample()
    await passes.reconcile()
    assert await passes.both_did_their_work()


async def test_reconciling_gives_up_on_a_master_that_hangs_and_the_next_pass_is_whole(
    servers: EmbeddedServices, passes: Passes
) -> None:
    servers.masters[0].pause()
    try:
        assert await gives_up(passes.reconcile) == "redis"
        await passes.sample()  # for which no master is asked
    finally:
        servers.masters[0].resume()
    async with repeated(passes.reconcile, every_seconds=0.05):
        await until(passes.both_did_their_work, "the counter is forgotten")


@pytest.mark.slow
async def test_passes_that_are_repeated_outlast_servers_that_hang(servers: EmbeddedServices, passes: Passes) -> None:
    begun: Counter[str] = Counter()

    async def noted(name: str, run_once: Callable[[], Awaitable[object]]) -> None:
        begun[name] += 1
        await run_once()

    assert servers.postgres is not None
    servers.postgres.pause()
    try:
        async with (
            repeated(partial(noted, "sample", passes.sample), every_seconds=0.05),
            repeated(partial(noted, "reconcile", passes.reconcile), every_seconds=0.05),
        ):
            await until(lambda: min(begun["sample"], begun["reconcile"]) > 1, "both have given up, and begun again")
            servers.postgres.resume()
            await until(passes.both_did_their_work, "both have done their work")
    finally:
        servers.postgres.resume()
