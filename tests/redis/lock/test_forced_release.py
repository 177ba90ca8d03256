"""A lock that is released by force: audited first, handed on, and harmless to every claim."""

import asyncio
import itertools
from collections import Counter

import pytest

from claimsvc.domain import (
    AlreadyClaimed,
    AuditEntry,
    Claimed,
    LockNotHeld,
    LockReleased,
    SoldOut,
    StrategyName,
)
from claimsvc.embedded import EmbeddedServices
from claimsvc.errors import UnavailableError
from claimsvc.redis.lock import Redlocks
from tests.redis.lock.lock_admin import ASKED, lock_admin_of, only_lock
from tests.support.audit import trail
from tests.support.databases import NOWHERE
from tests.support.locks import open_lock, until_in_line, values
from tests.support.storage import create_coupon
from tests.support.strategy_instances import open_instance
from tests.support.waiting import until


async def is_free_on_the_last(redis_urls: tuple[str, ...]) -> bool:
    return (await values(redis_urls))[-1] is None


async def test_a_forced_release_frees_the_lock_and_wakes_who_has_waited_longest(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    async with (
        open_lock(redis_urls) as (holder, told),
        open_lock(redis_urls) as (waiter, used),
        lock_admin_of(redis_urls, database_url) as lock_admin,
    ):
        entered, leave = asyncio.Event(), asyncio.Event()

        async def wait_and_hold(lock: Redlocks) -> None:
            async with lock.hold("spring"):
                entered.set()
                await leave.wait()

        async with holder.hold("spring"):
            waiting = asyncio.create_task(wait_and_hold(waiter))
            await until_in_line(redis_urls, 1)
            before = await only_lock(lock_admin)
            released = await lock_admin.release("spring", **ASKED, request_id="request-1")
            await entered.wait()
            after = await only_lock(lock_admin)
        assert isinstance(released, LockReleased)
        assert (len(released.released_on), released.not_reached, released.woke_another) == (3, (), True)
        assert released.holders == (before.holder,)
        assert after.holder == before.waiting[0].instance
        # The old holder gave back what was not its own any more: it knows, and the new holder has it still.
        assert told.lost_locks == 1
        assert (used.hints, used.retries) == ({"used": 1}, 0)
        assert (await only_lock(lock_admin)).holder == after.holder
        leave.set()
        await waiting
        assert used.lost_locks == 0

    [entry] = await trail(database_url)
    assert (entry.actor, entry.action, entry.subject_type, entry.subject) == (
        "os-user:ann@here",
        "lock.release",
        "coupon",
        "spring",
    )
    assert (entry.reason, entry.request_id) == ("its instance hangs", "request-1")
    assert entry.details["holders"][0]["instance"] == before.holder
    assert len(entry.details["holders"][0]["ttl_seconds"]) == 3
    assert entry.at is not None


async def test_a_lock_that_nobody_holds_is_not_released_and_nothing_is_audited(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    async with lock_admin_of(redis_urls, database_url) as lock_admin:
        assert await lock_admin.release("spring", **ASKED) == LockNotHeld()
    assert await trail(database_url) == []


async def test_without_postgresql_nothing_is_released(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (holder, observed), lock_admin_of(redis_urls, NOWHERE) as lock_admin:
        async with holder.hold("spring"):
            with pytest.raises(UnavailableError) as refused:
                await lock_admin.release("spring", **ASKED)
            assert refused.value.dependency == "postgresql"
            assert (await only_lock(lock_admin)).is_held
        assert observed.lost_locks == 0


async def test_the_trail_is_there_before_the_keys_are_removed(redis_urls: tuple[str, ...], database_url: str) -> None:
    """A process that dies between the two leaves an entry and a lock that expires, never a release without a trace."""
    async with open_lock(redis_urls) as (holder, _), lock_admin_of(redis_urls, database_url) as lock_admin:
        record, seen = lock_admin._audit.record, []

        async def record_and_look(entry: AuditEntry) -> None:
            await record(entry)
            seen.append(((await trail(database_url))[0].reason, await values(redis_urls)))

        lock_admin._audit.record = record_and_look  # type: ignore[method-assign]
        async with holder.hold("spring"):
            await lock_admin.release("spring", **ASKED)
    [(reason, kept)] = seen
    assert reason == ASKED["reason"]
    assert None not in kept


async def test_a_lock_that_changed_hands_meanwhile_stays_with_its_new_holder(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    async with (
        open_lock(redis_urls) as (first, _),
        open_lock(redis_urls) as (second, observed),
        lock_admin_of(redis_urls, database_url) as lock_admin,
    ):
        record = lock_admin._audit.record
        leave, left = asyncio.Event(), asyncio.Event()

        async def hold_until_told() -> None:
            async with first.hold("spring"):
                entered.set()
                await leave.wait()
            async with second.hold("spring"):
                left.set()
                await lock_admin_is_done.wait()

        entered, lock_admin_is_done = asyncio.Event(), asyncio.Event()

        async def record_and_let_it_change_hands(entry: AuditEntry) -> None:
            await record(entry)
            leave.set()
            await left.wait()

        lock_admin._audit.record = record_and_let_it_change_hands  # type: ignore[method-assign]
        holding = asyncio.create_task(hold_until_told())
        await entered.wait()
        assert await lock_admin.release("spring", **ASKED) == LockNotHeld()
        assert (await only_lock(lock_admin)).is_held
        lock_admin_is_done.set()
        await holding
        assert observed.lost_locks == 0


async def test_a_master_that_is_down_is_not_reached_and_the_others_are_enough(
    own_masters: EmbeddedServices, database_url: str
) -> None:
    urls = own_masters.redis_urls
    async with open_lock(urls) as (holder, _), open_lock(urls) as (next_holder, _):
        async with holder.hold("spring"), lock_admin_of(urls, database_url) as lock_admin:
            own_masters.masters[2].pause()
            try:
                released = await lock_admin.release("spring", **ASKED)
                assert isinstance(released, LockReleased)
                assert released.not_reached == (f"127.0.0.1:{own_masters.masters[2].port}",)
                assert len(released.released_on) == 2
                async with next_holder.hold_free(["spring"]) as lease:
                    assert list(lease.coupon_names) == ["spring"]
            finally:
                own_masters.masters[2].resume()
            # It is given back there too, once that master answers.
            await until(lambda: is_free_on_the_last(urls), "it is given back there")


async def test_locks_released_by_force_under_load_break_no_promise(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    """Two instances then hold the same lock again and again; PostgreSQL decides every claim all the same."""
    units, users = 150, 100
    async with (
        open_instance(StrategyName.REDLOCK, database_url, redis_urls) as here,
        open_instance(StrategyName.REDLOCK, database_url, redis_urls) as there,
        lock_admin_of(redis_urls, database_url) as lock_admin,
    ):
        for name in ("spring", "summer"):
            await create_coupon(here.storage, name, units // 2, StrategyName.REDLOCK)
        over = asyncio.Event()
        releases = 0

        async def release_without_end() -> None:
            nonlocal releases
            while not over.is_set():
                for name in ("spring", "summer"):
                    releases += isinstance(await lock_admin.release(name, **ASKED), LockReleased)

        async def claim_all(instance_number: int) -> list[object]:
            strategy = (here, there)[instance_number].strategy
            outcomes: list[object] = []
            for number in itertools.count():
                # A lock is held for milliseconds, and the command needs as long to release it: some tries miss.
                if number >= users and releases:
                    break
                claims = [strategy.claim(name, f"user-{number}") for name in ("spring", "summer")]
                outcomes += await asyncio.gather(*claims)
            return outcomes

        releasing = asyncio.create_task(release_without_end())
        outcomes = list(itertools.chain(*await asyncio.gather(claim_all(0), claim_all(1))))
        over.set()
        await releasing
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds[Claimed] == units
        assert kinds.keys() <= {Claimed, AlreadyClaimed, SoldOut}
        assert releases > 0
        for name in ("spring", "summer"):
            detail = await here.storage.coupons.coupon(name, claimants=1000)
            assert detail is not None
            assert detail.coupon.remaining_amount == 0
            assert len(set(detail.claimed_by)) == len(detail.claimed_by) == units // 2
        assert len(await trail(database_url)) == 10
