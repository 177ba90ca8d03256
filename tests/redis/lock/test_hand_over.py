"""Who gives a lock back wakes whoever has waited longest; and several locks are taken as one is."""

import asyncio
import zlib
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from claimsvc.embedded import embedded_services, temporary_state_dir
from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.redis.lock import Redlocks
from tests.support.injectors.masters import OUT_OF_MEMORY, READ_ONLY, TOO_FEW_REPLICAS, MasterFault
from tests.support.locks import (
    cancelled_after,
    clients,
    enter_and_leave,
    nobody_holds_it,
    open_lock,
    until_in_line,
    values,
)
from tests.support.waiting import until

_PATIENCE_SECONDS = 8.0


async def test_a_waiting_instance_is_woken_long_before_its_next_retry(redis_urls: tuple[str, ...]) -> None:
    patient = open_lock(redis_urls, retry_wait_seconds=_PATIENCE_SECONDS)
    async with open_lock(redis_urls) as (holder, sent), patient as (waiter, used):
        async with holder.hold("spring"):
            waiting = asyncio.create_task(enter_and_leave(waiter))
            await until_in_line(redis_urls, 1)
        async with asyncio.timeout(_PATIENCE_SECONDS / 2):
            await waiting
        assert sent.hints == {"sent": 1}
        assert used.hints == {"used": 1}
        assert used.retries == 0


async def test_instances_get_their_turns_in_the_order_of_their_waiting(redis_urls: tuple[str, ...]) -> None:
    order: list[int] = []

    async def note(number: int, lock: Redlocks) -> None:
        async with lock.hold("spring"):
            order.append(number)

    async with AsyncExitStack() as stack:
        holder, _ = await stack.enter_async_context(open_lock(redis_urls))
        waiters = [(await stack.enter_async_context(open_lock(redis_urls)))[0] for _ in range(4)]
        tasks = []
        async with holder.hold("spring"):
            for number, waiter in enumerate(waiters):
                tasks.append(asyncio.create_task(note(number, waiter)))
                await until_in_line(redis_urls, number + 1)
        await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_a_hint_that_is_lost_costs_no_more_than_the_pause(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (holder, _), open_lock(redis_urls) as (waiter, observed):
        async with holder.hold("spring"):
            waiting = asyncio.create_task(enter_and_leave(waiter))
            await until_in_line(redis_urls, 1)
            async with clients(redis_urls) as masters:
                for master in masters:
                    await master.delete("claim:waiting:spring")
        async with asyncio.timeout(_PATIENCE_SECONDS):  # far less than the lock's 20 s
            await waiting
        assert observed.retries == 1


@pytest.mark.parametrize("fault", [OUT_OF_MEMORY, READ_ONLY, TOO_FEW_REPLICAS], ids=lambda fault: fault.name)
async def test_an_instance_is_woken_even_if_the_lines_own_master_takes_no_writes(fault: MasterFault) -> None:
    """To that master the lock is always free, and it takes nobody into its line."""
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url="postgresql://unused/unused") as services,
    ):
        urls = services.redis_urls
        fault.inflict(services.masters[zlib.crc32(b"spring") % 3])
        # So long a pause that a busy machine is not taken for it: all this is over before the waiter's first retry.
        patient = open_lock(urls, retry_wait_seconds=_PATIENCE_SECONDS)
        async with open_lock(urls) as (holder, _), patient as (waiter, used):
            async with holder.hold("spring") as lease:
                waiting = asyncio.create_task(enter_and_leave(waiter))
                await until(lease.is_wanted, "the holder knows of it", within_seconds=_PATIENCE_SECONDS / 2)
            async with asyncio.timeout(_PATIENCE_SECONDS / 2):
                await waiting
            assert used.hints == {"used": 1}
            assert used.retries == 0


async def test_a_lock_that_nobody_waits_for_costs_no_hint_and_leaves_nothing_behind(
    redis_urls: tuple[str, ...],
) -> None:
    async with open_lock(redis_urls) as (lock, observed), clients(redis_urls) as masters:
        await enter_and_leave(lock)
        assert observed.hints == {}
        for master in masters:
            assert await master.keys("*") == []


async def test_who_gives_up_waiting_leaves_the_line(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (holder, sent), open_lock(redis_urls) as (waiter, _):
        async with holder.hold("spring"):
            waiting = asyncio.create_task(enter_and_leave(waiter))
            await until_in_line(redis_urls, 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await waiter.aclose()
        assert sent.hints == {}


async def test_a_lease_knows_whether_another_instance_waits(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (holder, _), open_lock(redis_urls) as (waiter, _):
        async with holder.hold("spring") as lease:
            assert not await lease.is_wanted()
            waiting = asyncio.create_task(enter_and_leave(waiter))
            await until_in_line(redis_urls, 1)
            assert await lease.is_wanted()
        assert lease.handed_over == ("spring",)
        await waiting


async def test_of_several_locks_those_that_are_free_are_taken(redis_urls: tuple[str, ...]) -> None:
    names = ["spring", "summer", "autumn"]
    async with open_lock(redis_urls) as (group, observed), open_lock(redis_urls) as (single, _):
        async with single.hold("summer"), group.hold_free(names) as lease:
            assert sorted(lease.coupon_names) == ["autumn", "spring"]
            assert len(set(await values(redis_urls))) == 1
            # A lock of a group keeps a single acquisition out, and another group.
            async with single.hold_free(["spring"]) as nothing:
                assert not nothing.coupon_names
            async with single.hold_free(["spring", "winter"]) as other:
                assert list(other.coupon_names) == ["winter"]
        assert observed.attempts == {"acquired": 2, "busy": 1}
        async with clients(redis_urls) as masters:
            for master in masters:
                assert await master.keys("*") == []


async def test_giving_a_group_back_wakes_who_waits_for_one_of_it(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (group, _), open_lock(redis_urls) as (waiter, used):
        async with group.hold_free(["spring", "summer"]):
            waiting = asyncio.create_task(enter_and_leave(waiter))
            await until_in_line(redis_urls, 1)
        await waiting
        assert used.hints == {"used": 1}


async def test_of_two_groups_that_want_the_same_locks_no_lock_is_held_by_both(redis_urls: tuple[str, ...]) -> None:
    names = [f"coupon-{i}" for i in range(20)]
    async with open_lock(redis_urls) as (here, _), open_lock(redis_urls) as (there, _):
        for _ in range(10):
            async with here.hold_free(names) as ours, there.hold_free(names) as theirs:
                assert not set(ours.coupon_names) & set(theirs.coupon_names)

            async def take(lock: Redlocks, turn: asyncio.Barrier) -> set[str]:
                async with lock.hold_free(names) as lease:
                    await turn.wait()
                    return set(lease.coupon_names)

            turn = asyncio.Barrier(2)
            held = await asyncio.gather(take(here, turn), take(there, turn))
            assert not held[0] & held[1]


async def test_cancelling_a_group_leaves_no_key_behind(redis_urls: tuple[str, ...]) -> None:
    async def hold_for_ever(lock: Redlocks) -> None:
        async with lock.hold_free(["spring", "summer"]):
            await asyncio.Event().wait()

    async with open_lock(redis_urls) as (lock, _):
        for turns in range(1, 40):
            await cancelled_after(turns, hold_for_ever(lock))
            await lock.aclose()
            assert await nobody_holds_it(redis_urls)


async def test_a_group_needs_a_majority_of_the_masters(redis_urls: tuple[str, ...]) -> None:
    gone = ("redis://127.0.0.1:1", "redis://127.0.0.1:2")
    async with open_lock((redis_urls[0], redis_urls[1], gone[0])) as (lock, _):
        async with lock.hold_free(["spring", "summer"]) as lease:
            assert sorted(lease.coupon_names) == ["spring", "summer"]
    async with open_lock((redis_urls[0], *gone)) as (lock, _):
        with pytest.raises(UnavailableError):
            async with lock.hold_free(["spring", "summer"]):
                pytest.fail("one of three is no majority")
        client = Redis.from_url(redis_urls[0])
        assert await client.keys("*") == []
        await client.aclose()


async def test_a_lock_that_one_master_forgot_is_given_up_on_as_any_other(redis_urls: tuple[str, ...]) -> None:
    """The line's own master calls it free all the while; the majority does not."""
    async with open_lock(redis_urls) as (holder, _), open_lock(redis_urls) as (waiter, observed):
        async with holder.hold("spring"), clients(redis_urls) as masters:
            await masters[zlib.crc32(b"spring") % 3].delete("claim:coupon:spring")
            with pytest.raises(LockBusyError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await enter_and_leave(waiter)
    assert observed.attempts["acquired"] == 0
