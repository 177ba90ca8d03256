"""Who holds which lock, as the masters themselves tell."""

import asyncio
import os
import socket
import time

import pytest
import redis

from claimsvc.embedded import EmbeddedServices
from claimsvc.errors import UnavailableError
from claimsvc.redis.lock import LockAdmin
from tests.redis.lock.lock_admin import lock_admin_of, only_lock
from tests.support.locks import clients, enter_and_leave, open_lock, until_in_line
from tests.support.waiting import until


async def held_for(lock_admin: LockAdmin, seconds: float) -> bool:
    return (await only_lock(lock_admin)).held_seconds >= seconds


async def test_a_held_lock_is_told_with_its_holder_and_its_life_on_each_master(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, _), lock_admin_of(redis_urls) as lock_admin:
        began = time.monotonic()
        async with lock.hold("spring"):
            await until(lambda: held_for(lock_admin, 0.05), "it is held for a moment")
            held = await only_lock(lock_admin)
            longest = time.monotonic() - began + 0.01  # masters tell whole milliseconds
        assert (held.coupon_name, held.is_held, held.turn, held.waiting) == ("spring", True, "", ())
        host, pid, chance = held.holder.split(":")
        assert (host, int(pid), len(chance)) == (socket.gethostname(), os.getpid(), 8)
        assert len(held.ttl_seconds) == 3
        assert all(20 - longest <= left <= 19.95 for left in held.ttl_seconds.values())
        assert 0.05 <= held.held_seconds <= longest
        seen = await lock_admin.held()
        assert (seen.locks, seen.down, seen.is_complete, len(seen.masters)) == ((), (), True, 3)


async def test_locks_of_a_group_name_the_same_holder_as_single_ones_of_that_instance(
    redis_urls: tuple[str, ...],
) -> None:
    async with open_lock(redis_urls) as (here, _), open_lock(redis_urls) as (there, _):
        async with (
            here.hold_free(["spring", "sum mer"]),
            here.hold("au tumn"),
            there.hold("winter"),
            lock_admin_of(redis_urls) as lock_admin,
        ):
            holders = {lock.coupon_name: lock.holder for lock in (await lock_admin.held()).locks}
    assert list(holders) == ["au tumn", "spring", "sum mer", "winter"]
    assert holders["spring"] == holders["sum mer"] == holders["au tumn"] != holders["winter"]


async def test_who_waits_is_told_longest_first(redis_urls: tuple[str, ...]) -> None:
    async with (
        open_lock(redis_urls) as (holder, _),
        open_lock(redis_urls) as (first, _),
        open_lock(redis_urls) as (second, _),
        lock_admin_of(redis_urls) as lock_admin,
    ):
        async with holder.hold("spring"):
            waiters = []
            for number, waiter in enumerate((first, second)):
                waiters.append(asyncio.create_task(enter_and_leave(waiter)))
                await until_in_line(redis_urls, number + 1)
            held = await only_lock(lock_admin)
        await asyncio.gather(*waiters)
    longest, shortest = held.waiting
    assert longest.seconds >= shortest.seconds >= 0
    assert len({held.holder, longest.instance, shortest.instance}) == 3


async def test_a_lock_that_few_masters_have_is_no_held_lock(redis_urls: tuple[str, ...]) -> None:
    async with clients(redis_urls) as masters, lock_admin_of(redis_urls) as lock_admin:
        await masters[0].set("claim:coupon:spring", "a-token-of-an-older-version", px=20_000)
        left_over = await only_lock(lock_admin)
        assert (left_over.is_held, left_over.holder, len(left_over.ttl_seconds)) == (False, "", 1)
        await masters[1].set("claim:coupon:spring", "web-2/token", px=20_000)
        torn = (await lock_admin.held()).locks
        assert [(lock.holder, lock.is_held) for lock in torn] == [("", False), ("web-2", False)]


async def test_a_master_that_is_down_is_named_and_a_majority_that_is_down_is_an_error(
    own_masters: EmbeddedServices,
) -> None:
    urls = own_masters.redis_urls
    async with open_lock(urls) as (lock, _), lock.hold("spring"), lock_admin_of(urls) as lock_admin:
        for paused in own_masters.masters[:2]:
            paused.pause()
            try:
                if paused is own_masters.masters[0]:
                    seen = await lock_admin.held()
                    assert seen.down == (f"127.0.0.1:{paused.port}",)
                    assert [(each.coupon_name, each.is_held) for each in seen.locks] == [("spring", True)]
                else:
                    own_masters.masters[0].kill()
                    with pytest.raises(UnavailableError, match="majority"):
                        await lock_admin.held()
            finally:
                paused.resume()


async def test_of_very_many_locks_some_are_told_and_that_there_are_more(redis_urls: tuple[str, ...]) -> None:
    async with clients(redis_urls) as masters, lock_admin_of(redis_urls) as lock_admin:
        for master in masters:
            many = master.pipeline(transaction=False)
            for number in range(1500):
                many.set(f"claim:coupon:coupon-{number:04}", "web-1/token", px=20_000)
                many.set(f"claim:stock:{{coupon-{number:04}}}", number)
            many.set("claim:coupon:not a name", "web-1/token", px=20_000)
            await many.execute()
        seen = await lock_admin.held()
    assert not seen.is_complete
    assert len(seen.locks) == 1000
    assert all(lock.is_held and lock.holder == "web-1" for lock in seen.locks)


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
            async with lock_admin_of(redis_urls) as lock_admin:
                return len((await lock_admin.held()).locks)

        assert asyncio.run(look()) == 500
        steps = master.info("commandstats")
        master.flushall()
    assert 100 <= steps["cmdstat_scan"]["calls"] < 300
    for command in ("cmdstat_scan", "cmdstat_evalsha"):
        assert steps[command]["usec_per_call"] < 5000
