"""Exchanges summaries between instances with Redis's publish and subscribe, which stores nothing.

An instance with viewers subscribes on every master; the others publish on one master at a time. They ask Redis for the
number of subscribers, so instances need not announce themselves, and a killed one leaves nothing behind.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from claimsvc.background import in_background
from claimsvc.observability.console.summary import Summary
from claimsvc.redis.masters import Client, Master

CHANNEL = "claim:console"
_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 0.5


class Relay:
    """Publishes this instance's summaries, and receives those of other instances.

    Args:
        masters: all masters of the lock.
        heard: called with each summary that is received, this instance's own included.
    """

    def __init__(self, masters: Sequence[Master], heard: Callable[[Summary], None]) -> None:
        self._masters = tuple(masters)
        self._heard = heard
        self._turn = 0
        self._subscribed: set[Master] = set()

    @property
    def hears(self) -> bool:
        """Whether summaries can be received: whether a subscription is open on a master that is up."""
        return any(master.up for master in self._subscribed)

    async def listeners(self) -> int:
        """Return the number of other instances that listen on the next master.

        The masters take turns, so that a master that some instances cannot reach only causes a delay.
        """
        master = self._next_master()
        if master is None:
            return 0
        with contextlib.suppress(RedisError):
            answer = await master.execute_command("PUBSUB", "NUMSUB", CHANNEL)
            return int(answer[1]) - (master in self._subscribed)
        return 0

    async def publish(self, summary: Summary) -> int:
        """Publish a summary on the next master. Returns how many other instances received it."""
        master = self._next_master()
        if master is None:
            return 0
        with contextlib.suppress(RedisError):
            return int(await master.execute_command("PUBLISH", CHANNEL, summary.to_bytes())) - (
                master in self._subscribed
            )
        return 0

    def _next_master(self) -> Master | None:
        for step in range(1, len(self._masters) + 1):
            turn = (self._turn + step) % len(self._masters)
            if self._masters[turn].up:
                self._turn = turn
                return self._masters[turn]
        return None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Receive summaries while the context is active."""
        async with in_background(*(self._listen(master) for master in self._masters)):
            yield

    async def _listen(self, master: Master) -> None:
        """Receive what is published on one master, until cancelled."""
        while True:
            client = Client.from_url(
                master.url,
                socket_timeout=_POLL_SECONDS + 1.0,
                socket_connect_timeout=_POLL_SECONDS,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=5,
                client_name="claimsvc-console",
            )
            try:
                async with client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    self._subscribed.add(master)
                    while True:
                        message = await channel.get_message(timeout=_POLL_SECONDS)
                        if message is not None and (summary := Summary.from_bytes(message["data"])):
                            self._heard(summary)
            except (RedisError, OSError):
                self._subscribed.discard(master)
                await asyncio.sleep(_AGAIN_SECONDS)
            finally:
                self._subscribed.discard(master)
                with contextlib.suppress(RedisError, OSError):
                    await client.aclose()
