"""A connection for messages is opened again when it is lost, and ends when it is told to, whatever redis-py does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from claimsvc.background import in_background
from claimsvc.redis.masters import Master
from claimsvc.redis.wire import Wire
from tests.support.observed import Observed
from tests.support.waiting import until


@asynccontextmanager
async def running(wire: Wire) -> AsyncIterator[Wire]:
    task = asyncio.create_task(wire.run())
    try:
        await until(lambda: wire.is_open, "the connection to be open")
        yield wire
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5.0)
        assert task.done()


@pytest.fixture
async def master(redis_urls: tuple[str, ...]) -> AsyncIterator[Master]:
    opened = Master(redis_urls[0], timeout_seconds=1.0, pool_size=4, observer=Observed())
    yield opened
    await opened.aclose(close_connection_pool=True)


async def test_replies_come_in_the_order_of_the_commands(master: Master) -> None:
    async with running(Wire(master)) as wire:
        replies = [wire.send("ECHO", str(number)) for number in range(100)]
        wire.send_only("PING")
        assert await asyncio.gather(*replies) == [str(number).encode() for number in range(100)]


async def test_messages_of_a_channel_are_received(master: Master) -> None:
    received: list[bytes] = []
    async with running(Wire(master)) as wire, running(Wire(master, "channel", received.append)):
        await until(lambda: _publishes(wire), "a subscriber")
        assert received[-1] == b"a\nmessage"


async def _publishes(wire: Wire) -> bool:
    return bool(await wire.send("PUBLISH", "channel", b"a\nmessage"))


async def test_a_lost_connection_fails_what_is_under_way_and_is_opened_again(master: Master) -> None:
    async with running(Wire(master)) as wire, Redis.from_url(master.url) as other:
        pending = wire.send("BLPOP", "nothing", 0)
        await other.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(RedisConnectionError):
            await pending
        await until(lambda: wire.is_open, "another connection")
        assert await wire.send("ECHO", "again") == b"again"


async def test_without_a_connection_nothing_is_sent(master: Master) -> None:
    wire = Wire(master)
    wire.send_only("PING")
    with pytest.raises(RedisConnectionError):
        wire.send("PING")


async def test_a_cancellation_that_redis_py_swallows_ends_it_all_the_same(master: Master) -> None:
    connect = AbstractConnection.connect

    async def swallowing(self: Any, *arguments: Any, **options: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await connect(self, *arguments, **options)  # type: ignore[no-untyped-call]

    with patch.object(AbstractConnection, "connect", swallowing):
        async with asyncio.timeout(30):
            async with in_background(Wire(master).run()):
                await asyncio.sleep(0)
                await asyncio.sleep(0)
