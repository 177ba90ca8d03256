"""The counter drifts, and nobody is told anything untrue for it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from claimsvc.domain import Claimed, ClaimOutcome, SoldOut, StrategyName
from claimsvc.errors import UnavailableError
from claimsvc.jobs import Drift, reconcile
from claimsvc.redis.counters import RedisCounters
from claimsvc.redis.masters import open_masters
from tests.support.observed import Observed
from tests.support.storage import create_coupon
from tests.support.strategy_instances import Instance, open_instance


@pytest.fixture
async def instance(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Instance]:
    async with open_instance(StrategyName.COUNTER, database_url, redis_urls) as opened:
        await create_coupon(opened.storage, "spring", 10, StrategyName.COUNTER)
        yield opened


@pytest.fixture
async def counters(redis_urls: tuple[str, ...]) -> AsyncIterator[RedisCounters]:
    async with open_masters(redis_urls, timeout_seconds=1.0, pool_size=4, observer=Observed()) as masters:
        yield RedisCounters(masters.all)


async def claim(instance: Instance, first: int, users: int) -> Counter[type]:
    outcomes = await asyncio.gather(
        *(instance.strategy.claim("spring", f"user-{i}") for i in range(first, first + users))
    )
    return Counter(type(outcome) for outcome in outcomes)


async def test_once_quiet_the_counter_equals_the_database(instance: Instance, counters: RedisCounters) -> None:
    await claim(instance, 0, 4)
    await claim(instance, 0, 4)
    assert await counters.count("spring") == 6


async def test_a_count_that_is_lost_is_learnt_from_the_database(instance: Instance, counters: RedisCounters) -> None:
    assert await claim(instance, 0, 4) == {Claimed: 4}
    await counters.forget("spring", 6)
    assert await claim(instance, 4, 10) == {Claimed: 6, SoldOut: 4}


@pytest.mark.parametrize("wrong", [0, 3, 1000])
async def test_a_count_that_is_wrong_sells_neither_more_nor_less(
    instance: Instance, counters: RedisCounters, wrong: int
) -> None:
    await counters.learn("spring", wrong)
    assert await claim(instance, 0, 30) == {Claimed: 10, SoldOut: 20}


async def test_a_count_that_has_drifted_is_found_and_learnt_anew(instance: Instance, counters: RedisCounters) -> None:
    await counters.learn("spring", 3)
    observed: dict[str, int] = {}

    async def drifts() -> list[Drift]:
        pages = reconcile(
            instance.storage.coupons,
            counters,
            settle_seconds=0.01,
            observe=lambda name, units: observed.update({name: units}),
        )
        return [drift async for page in pages for drift in page]

    assert await drifts() == [Drift("spring", counted=3, remaining_amount=10)]
    assert observed == {"spring": -7}
    assert await counters.count("spring") is None
    await claim(instance, 0, 1)
    assert await counters.count("spring") == 9
    assert await drifts() == []


async def test_a_counter_that_cannot_be_reached_is_done_without(
    instance: Instance, redis_urls: tuple[str, ...]
) -> None:
    class Gone(RedisCounters):
        async def take(self, coupon_name: str, units: int) -> int | None:
            raise UnavailableError("gone", dependency="redis")

    instance.strategy._counters = Gone([])  # type: ignore[attr-defined]
    assert await claim(instance, 0, 30) == {Claimed: 10, SoldOut: 20}


async def test_those_who_were_admitted_are_told_so_even_if_the_others_cannot_be_refused(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(attempts: object) -> list[ClaimOutcome | None]:
        raise UnavailableError("down", dependency="postgresql")

    monkeypatch.setattr(instance.storage.admission, "look", down)
    outcomes = await asyncio.gather(
        *(instance.strategy.claim("spring", f"user-{i}") for i in range(15)), return_exceptions=True
    )
    assert Counter(type(outcome) for outcome in outcomes) == {Claimed: 10, UnavailableError: 5}
