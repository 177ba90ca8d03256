"""Locks on given masters, and what the masters have of them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from claimsvc.redis.lock import Redlocks, open_redlocks
from claimsvc.redis.masters import open_masters
from tests.support.observed import Observed
from tests.support.waiting import until

KEY = "claim:coupon:spring"
TIMEOUT_SECONDS = 2.0


@asynccontextmanager
async def open_lock(
    urls: Sequence[str],
    *,
    ttl_seconds: float = 20.0,
    retries: int = 3,
    retry_wait_seconds: float = 0.5,
    combines: bool = False,
) -> AsyncIterator[tuple[Redlocks, Observed]]:
    observed = Observed()
    async with (
        open_masters(urls, timeout_seconds=TIMEOUT_SECONDS, pool_size=32, observer=observed) as masters,
        open_redlocks(
            masters.all,
            ttl_seconds=ttl_seconds,
            retries=retries,
            retry_wait_seconds=retry_wait_seconds,
            observer=observed,
            combines=combines,
        ) as lock,
    ):
        yield lock, observed


@asynccontextmanager
async def clients(urls: Sequence[str]) -> AsyncIterator[list[Redis]]:
    connected = [Redis.from_url(url) for url in urls]
    yield connected
    for client in connected:
        await client.aclose()


async def values(urls: Sequence[str], key: str = KEY) -> list[bytes | str | None]:
    async with clients(urls) as masters:
        return [await master.get(key) for master in masters]


async def enter_and_leave(lock: Redlocks) -> None:
    async with lock.hold("spring"):
        pass


async def nobody_holds_it(urls: Sequence[str]) -> bool:
    return await values(urls) == [None] * len(urls)


async def cancelled_after(turns: int, work: Coroutine[object, object, None]) -> None:
    """Let it run for so many turns of the loop, and cancel it."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def flush(urls: Sequence[str]) -> None:
    async with clients(urls) as masters:
        for master in masters:
            await master.flushall()


async def until_in_line(redis_urls: tuple[str, ...], instances: int) -> None:
    async with clients(redis_urls) as masters:

        async def are_in_line() -> bool:
            return sum([await master.zcard("claim:waiting:spring") for master in masters]) >= instances

        await until(are_in_line, f"{instances} are in line")
