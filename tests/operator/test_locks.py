"""Who holds which lock, as the masters themselves tell; and a lock that is released by force."""

import asyncio
import itertools
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis

from claimsvc.bootstrap import open_locksmith, open_storage
from claimsvc.config import Settings
from claimsvc.domain import (
    AlreadyClaimed,
    AuditEntry,
    Claimed,
    HeldLock,
    LockNotHeld,
    LockReleased,
    SoldOut,
    StrategyName,
)
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.errors import UnavailableError
from claimsvc.lock import Locksmith, Redlocks
from tests.behaviour.instances import open_instance
from tests.lock.test_hand_over import until_in_line
from tests.lock.test_redlock import clients, enter_and_leave, open_lock, values

NOWHERE = "postgresql://nobody:nothing@127.0.0.1:1/none"
ASKED = {"actor": "os-user:ann@here", "reason": "its instance hangs"}


@asynccontextmanager
async def locksmith_of(redis_urls: tuple[str, ...], database_url: str = NOWHERE) -> AsyncIterator[Locksmith]:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, redis_timeout_seconds=2.0)
    async with open_locksmith(settings) as locksmith:
        yield locksmith


async def trail(database_url: str, coupon_name: str = "spring") -> list[AuditEntry]:
    async with open_storage(Settings(database_url=database_url, redis_urls=("redis://unused",))) as storage:
        found: list[AuditEntry] = await storage.trail("coupon", coupon_name, limit=10)  # type: ignore[attr-defined]
        return found


async def only_lock(locksmith: Locksmith) -> HeldLock:
    [lock] = (await locksmith.held()).locks
    return lock


@pytest.fixture
def own_masters() -> Iterator[EmbeddedServices]:
    """Three masters that a test may stop."""
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url=NOWHERE) as services,
    ):
        yield services


async def test_a_held_lock_is_told_with_its_holder_and_its_life_on_each_master(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, _), locksmith_of(redis_urls) as locksmith:
        async with lock.hold("spring"):
            await asyncio.sleep(0.05)
            held = await only_lock(locksmith)
        assert (held.coupon_name, held.is_held, held.turn, held.waiting) == ("spring", True, "", ())
        host, pid, chance = held.holder.split(":")
        assert (host, int(pid), len(chance)) == (socket.gethostname(), os.getpid(), 8)
        assert len(held.ttl_seconds) == 3
        assert all(19 < left <= 19.95 for left in held.ttl_seconds.values())
        assert 0.05 <= held.held_seconds < 1
        seen = await locksmith.held()
        assert (seen.locks, seen.down, seen.is_complete, len(seen.masters)) == ((), (), True, 3)


async def test_locks_of_a_group_name_the_same_holder_as_single_ones_of_that_instance(
    redis_urls: tuple[str, ...],
) -> None:
    async with open_lock(redis_urls) as (here, _), open_lock(redis_urls) as (there, _):
        async with (
            here.hold_free(["spring", "summer"]),
            here.hold("autumn"),
            there.hold("winter"),
            locksmith_of(redis_urls) as locksmith,
        ):
            holders = {lock.coupon_name: lock.holder for lock in (await locksmith.held()).locks}
    assert list(holders) == ["autumn", "spring", "summer", "winter"]
    assert holders["spring"] == holders["summer"] == holders["autumn"] != holders["winter"]


async def test_who_waits_is_told_longest_first(redis_urls: tuple[str, ...]) -> None:
    async with (
        open_lock(redis_urls) as (holder, _),
        open_lock(redis_urls) as (first, _),
        open_lock(redis_urls) as (second, _),
        locksmith_of(redis_urls) as locksmith,
    ):
        async with holder.hold("spring"):
            waiters = []
            for number, waiter in enumerate((first, second)):
                waiters.append(asyncio.create_task(enter_and_leave(waiter)))
                await until_in_line(redis_urls, number + 1)
            held = await only_lock(locksmith)
        await asyncio.gather(*waiters)
    longest, shortest = held.waiting
    assert longest.seconds >= shortest.seconds >= 0
    assert len({held.holder, longest.instance, shortest.instance}) == 3


async def test_a_lock_that_few_masters_have_is_no_held_lock(redis_urls: tuple[str, ...]) -> None:
    async with clients(redis_urls) as masters, locksmith_of(redis_urls) as locksmith:
        await masters[0].set("claim:coupon:spring", "a-token-of-an-older-version", px=20_000)
        left_over = await only_lock(locksmith)
        assert (left_over.is_held, left_over.holder, len(left_over.ttl_seconds)) == (False, "", 1)
        await masters[1].set("claim:coupon:spring", "web-2/token", px=20_000)
        torn = (await locksmith.held()).locks
        assert [(lock.holder, lock.is_held) for lock in torn] == [("", False), ("web-2", False)]


async def test_a_master_that_is_down_is_named_and_a_majority_that_is_down_is_an_error(
    own_masters: EmbeddedServices,
) -> None:
    urls = own_masters.redis_urls
    async with open_lock(urls) as (lock, _), lock.hold("spring"), locksmith_of(urls) as locksmith:
        for paused in own_masters.masters[:2]:
            paused.pause()
            try:
                if paused is own_masters.masters[0]:
                    seen = await locksmith.held()
                    assert seen.down == (f"127.0.0.1:{paused.port}",)
                    assert [(each.coupon_name, each.is_held) for each in seen.locks] == [("spring", True)]
                else:
                    own_masters.masters[0].kill()
                    with pytest.raises(UnavailableError, match="majority"):
                        await locksmith.held()
            finally:
                paused.resume()


async def test_of_very_many_locks_some_are_told_and_that_there_are_more(redis_urls: tuple[str, ...]) -> None:
    async with clients(redis_urls) as masters, locksmith_of(redis_urls) as locksmith:
        for master in masters:
            many = master.pipeline(transaction=False)
            for number in range(1500):
                many.set(f"claim:coupon:coupon-{number:04}", "web-1/token", px=20_000)
                many.set(f"claim:stock:{{coupon-{number:04}}}", number)
            many.set("claim:coupon:not a name", "web-1/token", px=20_000)
            await many.execute()
        seen = await locksmith.held()
    assert not seen.is_complete
    assert len(seen.locks) == 1000
    assert all(lock.is_held and lock.holder == "web-1" for lock in seen.locks)


async def test_a_forced_release_frees_the_lock_and_wakes_who_has_waited_longest(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    async with (
        open_lock(redis_urls) as (holder, told),
        open_lock(redis_urls) as (waiter, used),
        locksmith_of(redis_urls, database_url) as locksmith,
    ):
        entered, leave = asyncio.Event(), asyncio.Event()

        async def wait_and_hold(lock: Redlocks) -> None:
            async with lock.hold("spring"):
                entered.set()
                await leave.wait()

        async with holder.hold("spring"):
            waiting = asyncio.create_task(wait_and_hold(waiter))
            await until_in_line(redis_urls, 1)
            before = await only_lock(locksmith)
            released = await locksmith.release("spring", **ASKED, request_id="request-1")
            await entered.wait()
            after = await only_lock(locksmith)
        assert isinstance(released, LockReleased)
        assert (len(released.released_on), released.not_reached, released.woke_another) == (3, (), True)
        assert released.holders == (before.holder,)
        assert after.holder == before.waiting[0].instance
        # The old holder gave back what was not its own any more: it knows, and the new holder has it still.
        assert told.lost_locks == 1
        assert (used.hints, used.retries) == ({"used": 1}, 0)
        assert (await only_lock(locksmith)).holder == after.holder
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
    async with locksmith_of(redis_urls, database_url) as locksmith:
        assert await locksmith.release("spring", **ASKED) == LockNotHeld()
    assert await trail(database_url) == []


async def test_without_postgresql_nothing_is_released(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (holder, observed), locksmith_of(redis_urls, NOWHERE) as locksmith:
        async with holder.hold("spring"):
            with pytest.raises(UnavailableError) as refused:
                await locksmith.release("spring", **ASKED)
            assert refused.value.dependency == "postgresql"
            assert (await only_lock(locksmith)).is_held
        assert observed.lost_locks == 0


async def test_the_trail_is_there_before_the_keys_are_removed(redis_urls: tuple[str, ...], database_url: str) -> None:
    """A process that dies between the two leaves an entry and a lock that expires, never a release without a trace."""
    async with open_lock(redis_urls) as (holder, _), locksmith_of(redis_urls, database_url) as locksmith:
        record, seen = locksmith._audit.record, []

        async def record_and_look(entry: AuditEntry) -> None:
            await record(entry)
            seen.append(((await trail(database_url))[0].reason, await values(redis_urls)))

        locksmith._audit.record = record_and_look  # type: ignore[method-assign]
        async with holder.hold("spring"):
            await locksmith.release("spring", **ASKED)
    [(reason, kept)] = seen
    assert reason == ASKED["reason"]
    assert None not in kept


async def test_a_lock_that_changed_hands_meanwhile_stays_with_its_new_holder(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    async with (
        open_lock(redis_urls) as (first, _),
        open_lock(redis_urls) as (second, observed),
        locksmith_of(redis_urls, database_url) as locksmith,
    ):
        record = locksmith._audit.record
        leave, left = asyncio.Event(), asyncio.Event()

        async def hold_until_told() -> None:
            async with first.hold("spring"):
                entered.set()
                await leave.wait()
            async with second.hold("spring"):
                left.set()
                await locksmith_is_done.wait()

        entered, locksmith_is_done = asyncio.Event(), asyncio.Event()

        async def record_and_let_it_change_hands(entry: AuditEntry) -> None:
            await record(entry)
            leave.set()
            await left.wait()

        locksmith._audit.record = record_and_let_it_change_hands  # type: ignore[method-assign]
        holding = asyncio.create_task(hold_until_told())
        await entered.wait()
        assert await locksmith.release("spring", **ASKED) == LockNotHeld()
        assert (await only_lock(locksmith)).is_held
        locksmith_is_done.set()
        await holding
        assert observed.lost_locks == 0


async def test_a_master_that_is_down_is_not_reached_and_the_others_are_enough(
    own_masters: EmbeddedServices, database_url: str
) -> None:
    urls = own_masters.redis_urls
    async with open_lock(urls) as (holder, _), open_lock(urls) as (next_holder, _):
        async with holder.hold("spring"), locksmith_of(urls, database_url) as locksmith:
            own_masters.masters[2].pause()
            try:
                released = await locksmith.release("spring", **ASKED)
                assert isinstance(released, LockReleased)
                assert released.not_reached == (f"127.0.0.1:{own_masters.masters[2].port}",)
                assert len(released.released_on) == 2
                async with next_holder.hold_free(["spring"]) as lease:
                    assert list(lease.coupon_names) == ["spring"]
            finally:
                own_masters.masters[2].resume()
            # It is given back there too, once that master answers.
            async with asyncio.timeout(5):
                while (await values(urls))[2] is not None:
                    await asyncio.sleep(0.01)


async def test_locks_released_by_force_under_load_break_no_promise(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    """Two instances then hold the same lock again and again; PostgreSQL decides every claim all the same."""
    units, users = 150, 100
    async with (
        open_instance(StrategyName.REDLOCK, database_url, redis_urls) as here,
        open_instance(StrategyName.REDLOCK, database_url, redis_urls) as there,
        locksmith_of(redis_urls, database_url) as locksmith,
    ):
        for name in ("spring", "summer"):
            await here.storage.create_coupon(name, units // 2, StrategyName.REDLOCK)
        over = asyncio.Event()
        releases = 0

        async def release_without_end() -> None:
            nonlocal releases
            while not over.is_set():
                for name in ("spring", "summer"):
                    releases += isinstance(await locksmith.release(name, **ASKED), LockReleased)

        async def claim_all(instance_number: int) -> list[object]:
            strategy = (here, there)[instance_number].strategy
            outcomes: list[object] = []
            for number in range(users):
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
            detail = await here.storage.coupon(name, claimants=1000)
            assert detail is not None
            assert detail.coupon.remaining_amount == 0
            assert len(set(detail.claimed_by)) == len(detail.claimed_by) == units // 2
        assert len(await trail(database_url)) == 10


def test_looking_is_done_in_many_small_steps(redis_urls: tuple[str, ...]) -> None:
    """With 50,000 other keys beside the locks no master is kept from its claims for as long as a claim takes."""
    with redis.Redis.from_url(redis_urls[0], decode_responses=True) as master:
        many = master.pipeline(transaction=False)
        for number in range(50_000):
            many.set(f"claim:stock:{{{number}}}", number)
        for number in range(500):
            many.set(f"claim:coupon:coupon-{number}", "web-1/token", px=60_000)
        many.execute()
        master.config_resetstat()

        async def look() -> int:
            async with locksmith_of(redis_urls) as locksmith:
                return len((await locksmith.held()).locks)

        assert asyncio.run(look()) == 500
        steps = master.info("commandstats")
        master.flushall()
    assert 100 <= steps["cmdstat_scan"]["calls"] < 300
    for command in ("cmdstat_scan", "cmdstat_evalsha"):
        assert steps[command]["usec_per_call"] < 5000
