"""The lock on real masters. Each trap of pottery that the service closes has a test that fails when it is open."""

import asyncio
import itertools
import json
import random
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from urllib.parse import urlsplit

import pytest
import uvloop

from claimsvc.embedded import embedded_services, temporary_state_dir
from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.redis.lock import Redlocks
from tests.support.locks import (
    KEY,
    TIMEOUT_SECONDS,
    cancelled_after,
    clients,
    enter_and_leave,
    flush,
    nobody_holds_it,
    open_lock,
    values,
)
from tests.support.proxy import proxy_to
from tests.support.waiting import quickest, until

LONG_BEFORE_ITS_TTL_SECONDS = 8.0


async def test_a_held_lock_is_one_key_of_that_name_and_life_on_every_master(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, _), clients(redis_urls) as masters:
        async with lock.hold("spring"):
            for master in masters:
                assert await master.keys("*") == [KEY.encode()]
                assert 19_000 < await master.pttl(KEY) <= 20_000
        for master in masters:
            assert await master.keys("*") == []


async def test_whoever_watches_is_told_which_locks_are_held_and_of_every_call(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, observed):
        async with lock.hold("spring"):
            assert observed.held_now == {"spring"}
        async with lock.hold_free(["spring", "summer"]):
            assert observed.held_now == {"spring", "summer"}
        assert observed.held_now == set()
        assert len(observed.calls) == 3
        assert min(observed.calls.values()) >= 5  # a probe, and the taking and giving back of both


async def test_every_acquisition_has_a_token_of_its_own(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, _):
        tokens: list[bytes | str | None] = []
        for _ in range(3):
            async with lock.hold("spring"):
                tokens += set(await values(redis_urls))
    assert len(tokens) == 3
    assert len(set(tokens)) == 3


async def test_only_one_holds_the_lock_at_a_time(redis_urls: tuple[str, ...]) -> None:
    holders = 0
    most_holders = 0

    async def hold_for_a_moment(lock: Redlocks) -> None:
        nonlocal holders, most_holders
        async with lock.hold("spring"):
            holders += 1
            most_holders = max(most_holders, holders)
            await asyncio.sleep(0.002)
            holders -= 1

    async with (
        open_lock(redis_urls, retries=400, retry_wait_seconds=0.005) as (here, _),
        open_lock(redis_urls, retries=400, retry_wait_seconds=0.005) as (there, _),
    ):
        await asyncio.gather(*(hold_for_a_moment(lock) for lock in (here, there) for _ in range(4)))
    assert most_holders == 1


async def test_a_busy_lock_is_tried_four_times_half_a_second_apart_and_then_given_up(
    redis_urls: tuple[str, ...],
) -> None:
    async def given_up() -> float:
        async with open_lock(redis_urls) as (waiter, observed):
            started = time.monotonic()
            with pytest.raises(LockBusyError):
                async with waiter.hold("spring"):
                    pytest.fail("two hold the lock")
            took = time.monotonic() - started
            assert observed.attempts == {"busy": 4}
            assert observed.retries == 3
            assert [result for result, _ in observed.waits] == ["busy"]
            assert observed.waiters == 0
        return took

    async with open_lock(redis_urls) as (holder, _), holder.hold("spring"):
        assert 1.5 <= await quickest(given_up, 2.5) < 2.5


async def test_a_lock_that_is_given_back_is_had_by_the_next_attempt(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (holder, _), open_lock(redis_urls) as (waiter, observed):
        async with holder.hold("spring"):
            waiting = asyncio.create_task(enter_and_leave(waiter))
            await until(lambda: observed.attempts["busy"], "it was found busy")
        await waiting
        assert observed.attempts["acquired"] == 1


async def test_cancelling_an_acquisition_at_any_moment_leaves_no_key_behind(redis_urls: tuple[str, ...]) -> None:
    acquired = asyncio.Event()

    async def acquire(lock: Redlocks) -> None:
        async with lock.hold("spring"):
            acquired.set()
            await asyncio.Event().wait()

    async with open_lock(redis_urls) as (lock, _):
        for turns in itertools.count(1):
            await cancelled_after(turns, acquire(lock))
            await lock.aclose()
            assert await nobody_holds_it(redis_urls), f"cancelled after {turns} turns of the loop"
            if acquired.is_set():
                break
    assert turns > 5, "it was cancelled at too few moments to mean anything"


async def test_the_body_fails_with_its_own_error_even_if_the_lock_was_lost(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, observed):
        with pytest.raises(ZeroDivisionError):
            async with lock.hold("spring"):
                await flush(redis_urls)
                raise ZeroDivisionError
    assert observed.lost_locks == 1


async def test_work_that_succeeded_is_not_failed_by_a_lock_that_was_lost(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, observed):
        async with lock.hold("spring"):
            await flush(redis_urls)
    assert observed.lost_locks == 1


async def test_giving_back_late_leaves_the_next_holders_lock_alone(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls, ttl_seconds=0.2) as (slow, observed), open_lock(redis_urls) as (prompt, _):
        async with AsyncExitStack() as slow_hold:
            await slow_hold.enter_async_context(slow.hold("spring"))
            async with prompt.hold("spring"):  # once the first has expired
                held = await values(redis_urls)
                await slow_hold.aclose()
                assert await values(redis_urls) == held
                assert None not in held
    assert observed.lost_locks == 1


async def test_a_lease_ends_before_its_key_does(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, _), lock.hold("spring") as lease, clients(redis_urls) as masters:
        left = lease.seconds_left()
        assert left < min([await master.pttl(KEY) for master in masters]) / 1000
        assert left > 19.0


async def test_scripts_that_the_masters_forgot_are_sent_again(redis_urls: tuple[str, ...]) -> None:
    async with open_lock(redis_urls) as (lock, observed), clients(redis_urls) as masters:
        async with lock.hold("spring"):
            for master in masters:
                await master.script_flush()
        assert await values(redis_urls) == [None] * 3
        assert observed.lost_locks == 0


async def test_a_minority_that_hangs_costs_at_most_one_time_out() -> None:
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url="postgresql://unused/unused") as services,
    ):
        async with open_lock(services.redis_urls) as (lock, observed):
            await enter_and_leave(lock)
            services.masters[0].pause()
            started = time.monotonic()
            for _ in range(20):
                await enter_and_leave(lock)
            assert time.monotonic() - started < 5 * TIMEOUT_SECONDS
            assert observed.attempts == {"acquired": 21}
            services.masters[0].resume()


async def test_a_majority_that_is_gone_is_told_at_once_and_not_as_busy() -> None:
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url="postgresql://unused/unused") as services,
    ):
        # A retry as of a busy lock would come after so long a pause that a busy machine is not taken for it.
        async with open_lock(services.redis_urls, retry_wait_seconds=20.0) as (lock, observed):
            for master in services.masters[:2]:
                master.kill()
            started = time.monotonic()
            with pytest.raises(UnavailableError) as refusal:
                await enter_and_leave(lock)
            assert refusal.value.dependency == "redis"
            assert time.monotonic() - started < 10, "it was retried as if it were busy"
            assert observed.attempts == {"unavailable": 1}
            for master in services.masters[:2]:
                master.start()
            await until(lambda: is_available(lock), "the majority is back")


async def is_available(lock: Redlocks) -> bool:
    with suppress(UnavailableError):
        await enter_and_leave(lock)
        return True
    return False


@pytest.mark.parametrize("hung", [1, 2])
async def test_what_a_master_was_asked_before_it_hung_is_undone_when_it_goes_on(hung: int) -> None:
    """It takes the lock then, for one who has given up long ago: nobody could have it for its whole life."""
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url="postgresql://unused/unused") as services,
    ):
        async with open_lock(services.redis_urls) as (lock, _):
            await enter_and_leave(lock)
            for master in services.masters[:hung]:
                master.pause()
            with suppress(UnavailableError):
                await enter_and_leave(lock)
            for master in services.masters[:hung]:
                master.resume()
            undone = partial(nobody_holds_it, services.redis_urls)
            await until(undone, "what was asked for is undone", within_seconds=LONG_BEFORE_ITS_TTL_SECONDS)
            await until(partial(is_available, lock), "the lock can be had")
            assert await undone()


async def test_it_is_undone_also_after_the_master_has_hung_for_longer_than_the_lock_lives() -> None:
    """The key lives from when the master goes on, not from when it was asked for."""
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url="postgresql://unused/unused") as services,
    ):
        async with open_lock(services.redis_urls, ttl_seconds=3.0) as (lock, _):
            await enter_and_leave(lock)
            for master in services.masters[:2]:
                master.pause()
            with suppress(UnavailableError):
                await enter_and_leave(lock)
            await asyncio.sleep(4.0)
            for master in services.masters[:2]:
                master.resume()
            resumed = time.monotonic()
            await until(partial(is_available, lock), "the lock can be had", within_seconds=2.0)
            assert time.monotonic() - resumed < 2.0


def test_connections_that_are_reset_at_any_moment_are_only_ever_unavailable_masters(
    redis_urls: tuple[str, ...],
) -> None:
    """On the event loop that serves, which says in its own way that a connection is gone."""

    async def claim(lock: Redlocks, ends: float) -> None:
        while time.monotonic() < ends:
            with suppress(UnavailableError, LockBusyError):
                await enter_and_leave(lock)
            await asyncio.sleep(0)

    async def reset() -> None:
        async with AsyncExitStack() as stack:
            ports = [urlsplit(url).port for url in redis_urls]
            proxies = [await stack.enter_async_context(proxy_to("127.0.0.1", port or 0)) for port in ports]
            urls = [f"redis://127.0.0.1:{proxy.port}/0" for proxy in proxies]
            lock, _ = await stack.enter_async_context(open_lock(urls))
            ends = time.monotonic() + 2.0
            claims = [asyncio.create_task(claim(lock, ends)) for _ in range(4)]
            resets = 0
            while time.monotonic() < ends:
                resets += random.choice(proxies).reset()
                await asyncio.sleep(random.uniform(0, 0.02))
            await asyncio.gather(*claims)
            assert resets > 20
            await until(partial(is_available, lock), "the lock can be had")
            undone = partial(nobody_holds_it, redis_urls)
            await until(undone, "what was asked for is undone", within_seconds=LONG_BEFORE_ITS_TTL_SECONDS)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reset())


async def test_a_lock_that_a_killed_master_kept_on_disk_is_given_back_when_it_is_up_again() -> None:
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, database_url="postgresql://unused/unused") as services,
    ):
        async with open_lock(services.redis_urls) as (lock, observed):
            async with lock.hold("spring"):
                services.masters[0].kill()
            services.masters[0].start()
            # It is up with the key, which without a word of ours it would keep for what is left of the 20 s.
            given_back = partial(nobody_holds_it, services.redis_urls)
            await until(given_back, "it is given back", within_seconds=LONG_BEFORE_ITS_TTL_SECONDS)
            await enter_and_leave(lock)
            assert observed.attempts == {"acquired": 2}


def test_importing_the_lock_leaves_json_alone_and_does_not_read_redis_url() -> None:
    program = """
import json, os
before = json.dumps
import claimsvc.redis.lock
assert json.dumps is before, "json.dumps was replaced"
assert os.environ["REDIS_URL"] == "not a url"
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env={"REDIS_URL": "not a url"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.dumps({}) == "{}"
