"""A connection for messages is opened again when it is lost, and ends when it is told to, whatever redis-py does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from claimsvc.background import in_background
from claimsvc.redis.masters import Master
from claimsvc.redis.scripts import Script
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


async def test_a_late_reply_is_never_taken_for_that_of_a_later_command(master: Master) -> None:
    """The connection is given up, and what claims send goes by redis-py until there is another."""
    async with running(master.wire):
        late = master.wire.send("BLPOP", "nothing", 0)
        with pytest.raises(RedisTimeoutError):
            await master.eval("return 'first'", 0)  # it waits behind that
        assert not master.wire.is_open
        with pytest.raises(RedisConnectionError):
            await late
        assert not master.up
        master.mark(up=True)
        assert await master.eval("return 'second'", 0) == b"second"
        await until(lambda: master.wire.is_open, "another connection")
        assert await master.eval("return 'third'", 0) == b"third"


async def test_what_claims_send_is_answered_by_the_wire_as_by_redis_py(master: Master) -> None:
    async def answers() -> list[object]:
        await master.delete("claim:key")
        outcomes = [
            await master.set("claim:key", "token", nx=True, px=1000),
            await master.set("claim:key", "other", nx=True, px=1000),
            await Script("lock_release.lua")(master, ["claim:key"], "token", 50, 50, ""),
            await master.eval("return {1, 'two', false}", 0),
        ]
        for script in ("return redis.error_reply('READONLY no writes')", "return redis.call('GET')"):
            with pytest.raises(RedisError) as refusal:
                await master.eval(script, 0)
            outcomes.append(isinstance(refusal.value, ResponseError))
        with pytest.raises(NoScriptError):
            await master.evalsha("0" * 40, 0)
        return outcomes

    by_redis_py = await answers()
    async with running(master.wire):
        with patch.object(Connection, "send_packed_command", side_effect=AssertionError("not by the wire")):
            sent = [await master.eval("return 1", 0)]
        assert sent == [1]
        assert await answers() == by_redis_py == [True, None, [1], [1, b"two", None], True, True]


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
