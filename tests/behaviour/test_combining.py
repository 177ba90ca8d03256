"""Instances hand their batches to the holder of the lock; whatever becomes of it, each claim is decided once."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from claimsvc.claiming.combining import Combiner, Desk
from claimsvc.domain import AlreadyClaimed, Claimed, ClaimOptions, ClaimOutcome, IdempotencyKey, SoldOut, StrategyName
from claimsvc.errors import LockBusyError
from tests.support.databases import administrate
from tests.support.locks import open_lock
from tests.support.storage import broken_sums, create_coupon
from tests.support.strategy_instances import Instance, open_instance
from tests.support.waiting import until


@pytest.fixture
async def instances(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[list[Instance]]:
    """Three, with the coupon `spring` of 250 units."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_instance(StrategyName.REDLOCK, database_url, redis_urls))
            for _ in range(3)
        ]
        await create_coupon(opened[0].storage, "spring", 250, StrategyName.REDLOCK)
        yield opened
    assert not broken_sums(database_url)


@asynccontextmanager
async def holding(redis_urls: tuple[str, ...]) -> AsyncIterator[Desk]:
    """Hold the lock of `spring` as an instance that combines, and has claims of its own, does."""
    async with open_lock(redis_urls, combines=True) as (lock, observed):
        assert lock.post is not None
        async with lock.hold("spring"):
            with Combiner("holder", lock.post, observed).desk(["spring"]) as desk:
                yield desk


def claim(
    instance: Instance, *users: str, options: ClaimOptions | None = None
) -> "asyncio.Future[list[ClaimOutcome | BaseException]]":
    answers = [instance.strategy.claim("spring", user, options) for user in users]
    return asyncio.gather(*answers, return_exceptions=True)


async def lies_on(desk: Desk) -> None:
    await until(lambda: bool(desk), "a batch on the desk")


def combined(instances: Sequence[Instance], role: str) -> int:
    return sum(instance.observed.claims_combined[role] for instance in instances)


async def test_a_rush_over_three_instances_is_exact_and_combined(instances: list[Instance]) -> None:
    async def client(number: int) -> list[ClaimOutcome]:
        strategy = instances[number % 3].strategy
        return [await strategy.claim("spring", f"user-{number}-{each}") for each in range(20)]

    outcomes = [each for of_client in await asyncio.gather(*map(client, range(15))) for each in of_client]
    claimed = [each.claim for each in outcomes if isinstance(each, Claimed)]
    assert len(claimed) == 250
    assert outcomes.count(SoldOut()) == 50
    assert len({each.user_id for each in claimed}) == 250
    detail = await instances[0].storage.coupons.coupon("spring", claimants=1000)
    assert detail is not None
    assert set(detail.claimed_by) == {each.user_id for each in claimed}
    assert combined(instances, "origin") == combined(instances, "holder") > 0


async def test_the_holder_decides_and_the_origins_clients_hear_it(
    instances: list[Instance], redis_urls: tuple[str, ...]
) -> None:
    async with holding(redis_urls) as desk:
        answers = claim(instances[0], "ada", "ben")
        await lies_on(desk)
        await desk.admit(instances[1].storage.admission, ())
        claimed = await answers
    for user, each in zip(("ada", "ben"), claimed, strict=True):
        assert isinstance(each, Claimed)
        assert each.claim.user_id == user
        assert await instances[2].storage.claims.claim(each.claim.id) == each.claim


async def test_a_holder_that_does_not_combine_is_waited_for_in_line(
    instances: list[Instance], redis_urls: tuple[str, ...]
) -> None:
    async with open_lock(redis_urls) as (lock, _):
        async with lock.hold("spring"):
            answers = claim(instances[0], "ada")
            await until(lambda: instances[0].observed.waiters == 1, "a waiter in line")
        [claimed] = await answers
    assert isinstance(claimed, Claimed)
    assert not combined(instances, "origin")


@pytest.mark.parametrize("decides", [False, True], ids=["and decides nothing", "after it has decided"])
async def test_a_holder_that_falls_silent(
    instances: list[Instance], redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, decides: bool
) -> None:
    origin = instances[0]
    monkeypatch.setattr(Combiner, "answer", lambda *_: None)
    async with holding(redis_urls) as desk:
        answers = claim(origin, "ada", "ben")
        await lies_on(desk)
        if decides:
            await desk.admit(instances[1].storage.admission, ())
        await until(lambda: bool(origin.observed.batches_taken_back), "the origin to take it back")
        assert origin.observed.batches_taken_back == {"decided" if decides else "undecided": 1}
        late = desk.waiting()
    claimed = await answers
    assert all(isinstance(each, Claimed) for each in claimed)
    # A holder that goes on later gets nothing of it.
    _, handed = await instances[1].storage.admission.admit_handed((), late)
    assert handed == [None] * len(handed)
    again = await claim(origin, "ada", "ben")
    assert again == [AlreadyClaimed(each.claim) for each in claimed if isinstance(each, Claimed)]


async def test_a_silent_holder_costs_no_more_than_the_limit_of_a_claim(
    instances: list[Instance], redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Combiner, "answer", lambda *_: None)
    started = time.monotonic()
    async with holding(redis_urls):
        # These instances wait for a lock for 6 s.
        [refused] = await claim(instances[0], "ada")
    assert isinstance(refused, LockBusyError)
    assert time.monotonic() - started < 12
    [claimed] = await claim(instances[1], "ada")
    assert isinstance(claimed, Claimed)


@pytest.mark.parametrize(
    "options",
    [ClaimOptions(hold_seconds=60), ClaimOptions(idempotency_key=IdempotencyKey("me", "key", b"print", "request"))],
    ids=["hold", "idempotency key"],
)
async def test_claims_with_options_are_combined(
    instances: list[Instance], redis_urls: tuple[str, ...], options: ClaimOptions
) -> None:
    async with holding(redis_urls) as desk:
        answers = claim(instances[0], "ada", options=options)
        await lies_on(desk)
        await desk.admit(instances[1].storage.admission, ())
        [claimed] = await answers
    assert isinstance(claimed, Claimed)
    assert await instances[2].storage.claims.claim(claimed.claim.id) == claimed.claim


async def test_a_lock_that_is_released_goes_on_to_the_one_that_is_invited(
    instances: list[Instance], redis_urls: tuple[str, ...]
) -> None:
    async with open_lock(redis_urls, combines=True) as (lock, observed):
        assert lock.post is not None
        combiner = Combiner("holder", lock.post, observed)
        async with lock.hold("spring") as lease:
            with combiner.desk(["spring"]) as desk:
                first = claim(instances[0], "ada")
                await lies_on(desk)
                await desk.admit(instances[1].storage.admission, ())
                await first
                second = claim(instances[0], "ben")
                await lies_on(desk)
                successor = desk.successor()
                assert successor is not None
                lease.hand_to(successor)
        assert lease.handed_over == ("spring",)
    assert isinstance((await second)[0], Claimed)
    assert instances[0].observed.waits[-1][0] == "acquired"


async def test_a_busy_coupon_that_is_sold_out_keeps_no_other_waiting(instances: list[Instance]) -> None:
    instance = instances[0]
    for name in ("summer", "autumn"):
        await create_coupon(instance.storage, name, 1, StrategyName.REDLOCK)
        await instance.strategy.claim(name, "first")
    asked = 0

    async def ask_on(number: int, name: str) -> None:
        nonlocal asked
        while True:
            assert await instance.strategy.claim(name, f"user-{number}-{asked}") == SoldOut()
            asked += 1

    asking = [asyncio.create_task(ask_on(number, ("summer", "autumn")[number % 2])) for number in range(40)]
    await until(lambda: asked > 200, "sold out again and again")
    async with asyncio.timeout(5.0):
        assert isinstance((await claim(instance, "ada"))[0], Claimed)
    assert not any(each.done() for each in asking)
    for each in asking:
        each.cancel()
    await asyncio.wait(asking)


async def test_a_coupon_that_was_sold_out_and_has_units_again_is_claimed(
    instances: list[Instance], database_url: str
) -> None:
    await create_coupon(instances[0].storage, "autumn", 1, StrategyName.REDLOCK)
    for user in ("ada", "ben", "cleo"):
        await instances[0].strategy.claim("autumn", user)
    administrate(database_url, "UPDATE coupons SET amount = 2, remaining_amount = 1 WHERE name = 'autumn'")
    assert isinstance(await instances[0].strategy.claim("autumn", "ben"), Claimed)
    assert await instances[0].strategy.claim("autumn", "cleo") == SoldOut()
