"""What every strategy promises, on real PostgreSQL and real masters."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from claimsvc.domain import AlreadyClaimed, Claimed, ClaimOutcome, SoldOut, StrategyName, UnknownCoupon
from claimsvc.errors import ClaimsvcError, LockBusyError, UnavailableError
from claimsvc.postgres import Repositories
from tests.support.storage import create_coupon
from tests.support.strategy_instances import STRATEGIES, Instance, open_instance
from tests.support.waiting import until

Open = Callable[[], Awaitable[Instance]]


@pytest.fixture(params=STRATEGIES)
async def open_one(
    request: pytest.FixtureRequest, database_url: str, redis_urls: tuple[str, ...]
) -> AsyncIterator[Open]:
    """Opens instances of the service, each with its own pool and its own clients, all on the same databases."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(open_instance(request.param, database_url, redis_urls))


async def stock_is_consistent(storage: Repositories, name: str) -> int:
    """I1 to I3 in one snapshot; returns what remains."""
    detail = await storage.coupons.coupon(name, claimants=100_000)
    assert detail is not None
    assert len(set(detail.claimed_by)) == len(detail.claimed_by)
    assert detail.coupon.remaining_amount == detail.coupon.amount - len(detail.claimed_by)
    return detail.coupon.remaining_amount


def counted(outcomes: list[ClaimOutcome]) -> Counter[type]:
    return Counter(type(outcome) for outcome in outcomes)


async def test_a_claim_is_kept_and_read_back(open_one: Open) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 2, StrategyName.REDLOCK)
    outcome = await instance.strategy.claim("spring", "ada")
    assert isinstance(outcome, Claimed)
    assert await instance.storage.claims.claim(outcome.claim.id) == outcome.claim
    assert await stock_is_consistent(instance.storage, "spring") == 1


async def test_the_second_claim_of_a_user_gets_the_first_one_back(open_one: Open) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 2, StrategyName.REDLOCK)
    first = await instance.strategy.claim("spring", "ada")
    assert isinstance(first, Claimed)
    assert await instance.strategy.claim("spring", "ada") == AlreadyClaimed(first.claim)


async def test_nothing_left_is_sold_out_and_no_coupon_is_unknown(open_one: Open) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 1, StrategyName.REDLOCK)
    await instance.strategy.claim("spring", "ada")
    assert await instance.strategy.claim("spring", "ben") == SoldOut()
    assert await instance.strategy.claim("autumn", "ben") == UnknownCoupon()


@pytest.mark.parametrize("instances", [1, 3])
async def test_of_a_hundred_at_once_exactly_the_stock_succeeds_and_the_rest_hear_the_truth(
    open_one: Open, instances: int
) -> None:
    opened = [await open_one() for _ in range(instances)]
    for sale in range(5):
        name = f"sale-{sale}"
        await create_coupon(opened[0].storage, name, 5, StrategyName.REDLOCK)
        outcomes = await asyncio.gather(*(opened[i % instances].strategy.claim(name, f"user-{i}") for i in range(100)))
        assert counted(outcomes) == {Claimed: 5, SoldOut: 95}
        assert await stock_is_consistent(opened[0].storage, name) == 0


async def test_of_ten_at_once_by_one_user_one_succeeds_and_nine_get_that_one_back(open_one: Open) -> None:
    here, there = await open_one(), await open_one()
    await create_coupon(here.storage, "spring", 100, StrategyName.REDLOCK)
    outcomes = await asyncio.gather(*((here, there)[i % 2].strategy.claim("spring", "ada") for i in range(10)))
    assert counted(outcomes) == {Claimed: 1, AlreadyClaimed: 9}
    assert len({outcome.claim for outcome in outcomes if isinstance(outcome, Claimed | AlreadyClaimed)}) == 1
    assert await stock_is_consistent(here.storage, "spring") == 99


async def test_a_duplicate_never_eats_the_stock_of_another(open_one: Open) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 3, StrategyName.REDLOCK)
    await instance.strategy.claim("spring", "ada")
    outcomes = await asyncio.gather(
        *(instance.strategy.claim("spring", user) for user in ("ada", "ada", "ben", "ben", "cleo"))
    )
    assert counted(outcomes) == {AlreadyClaimed: 3, Claimed: 2}


async def test_many_coupons_at_once_do_not_mix(open_one: Open) -> None:
    here, there = await open_one(), await open_one()
    names = [f"coupon-{i}" for i in range(20)]
    for name in names:
        await create_coupon(here.storage, name, 3, StrategyName.REDLOCK)
    outcomes = await asyncio.gather(
        *((here, there)[i % 2].strategy.claim(name, f"user-{i}") for i in range(10) for name in names)
    )
    assert counted(outcomes) == {Claimed: 60, SoldOut: 140}
    for name in names:
        assert await stock_is_consistent(here.storage, name) == 0


async def test_a_cancelled_caller_harms_nobody_else(open_one: Open) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 100, StrategyName.REDLOCK)
    claims = [asyncio.ensure_future(instance.strategy.claim("spring", f"user-{i}")) for i in range(40)]
    for turn, claim in enumerate(claims[::4]):
        for _ in range(turn):
            await asyncio.sleep(0)
        claim.cancel()
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds[Claimed] + kinds[asyncio.CancelledError] == 40
    assert kinds[Claimed] >= 30
    remaining = await stock_is_consistent(instance.storage, "spring")
    assert kinds[Claimed] <= 100 - remaining <= 40


async def test_draining_finishes_what_was_accepted_and_refuses_what_comes_later(open_one: Open) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 100, StrategyName.REDLOCK)
    accepted = [asyncio.ensure_future(instance.strategy.claim("spring", f"user-{i}")) for i in range(20)]
    await asyncio.sleep(0)
    await instance.strategy.drain()
    assert all(claim.done() for claim in accepted)
    assert counted([claim.result() for claim in accepted]) == {Claimed: 20}
    with pytest.raises(UnavailableError):
        await instance.strategy.claim("spring", "late")


async def test_once_quiet_no_lock_is_held_and_no_connection_is_borrowed(
    open_one: Open, redis_urls: tuple[str, ...]
) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 5, StrategyName.REDLOCK)
    await asyncio.gather(*(instance.strategy.claim("spring", f"user-{i}") for i in range(50)))
    await instance.strategy.drain()
    for url in redis_urls:
        client = Redis.from_url(url)
        assert await client.keys("claim:coupon:*") == []
        await client.aclose()
    assert instance.observed.connections["in_use"] == 0


async def test_more_than_may_wait_are_refused_at_once(open_one: Open) -> None:
    instance = await open_one()
    limit = instance.waiting_limit
    await create_coupon(instance.storage, "spring", 2 * limit, StrategyName.REDLOCK)
    claims = [instance.strategy.claim("spring", f"user-{i}") for i in range(limit + 5)]
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    assert Counter(type(outcome) for outcome in outcomes) == {Claimed: limit, UnavailableError: 5}


@pytest.mark.parametrize("open_one", [StrategyName.REDLOCK], indirect=True)
async def test_a_claim_gives_up_on_a_lock_that_stays_busy_and_never_calls_it_sold_out(
    open_one: Open, redis_urls: tuple[str, ...]
) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 5, StrategyName.REDLOCK)
    masters = [Redis.from_url(url) for url in redis_urls]
    for master in masters:
        await master.set("claim:coupon:spring", "another instance", px=20_000)
    first = asyncio.ensure_future(instance.strategy.claim("spring", "ada"))
    await until(lambda: instance.observed.attempts["busy"] >= 2, "it was found busy twice")
    late = asyncio.ensure_future(instance.strategy.claim("spring", "ben"))
    with pytest.raises(LockBusyError):
        await first
    # The late one has a time of its own, so a lock that becomes free meanwhile is still taken for it.
    assert not late.done()
    for master in masters:
        await master.delete("claim:coupon:spring")
        await master.aclose()
    assert isinstance(await late, Claimed)


async def test_a_failure_of_the_database_is_an_error_and_not_an_answer(open_one: Open, database_url: str) -> None:
    instance = await open_one()
    await create_coupon(instance.storage, "spring", 5, StrategyName.REDLOCK)
    await instance.break_database()
    with pytest.raises(ClaimsvcError) as failure:
        await instance.strategy.claim("spring", "ada")
    assert isinstance(failure.value, UnavailableError)
    await instance.mend_database()
    assert isinstance(await instance.strategy.claim("spring", "ada"), Claimed)


async def test_two_busy_coupons_keep_no_third_waiting(open_one: Open) -> None:
    instance = await open_one()
    for name in ("summer", "autumn", "spring"):
        await create_coupon(instance.storage, name, 1_000_000, StrategyName.REDLOCK)
    claimed = 0

    async def claim_on(name: str, client: int) -> None:
        nonlocal claimed
        while True:
            await instance.strategy.claim(name, f"user-{client}-{claimed}")
            claimed += 1

    claiming = [asyncio.create_task(claim_on(("summer", "autumn")[client % 2], client)) for client in range(40)]
    try:
        await until(lambda: claimed > 200, "claims again and again")
        async with asyncio.timeout(5.0):
            assert isinstance(await instance.strategy.claim("spring", "ada"), Claimed)
    finally:
        for each in claiming:
            each.cancel()
        await asyncio.wait(claiming)
