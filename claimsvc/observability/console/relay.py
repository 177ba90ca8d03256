"""How instances tell each other what happens: by Redis's publish and subscribe, which stores nothing.

Whoever has viewers subscribes on every master; whoever has something to tell publishes on one of them. Who is there to
hear it is asked of Redis, so nothing has to be announced, and nothing is left behind by who is killed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from claimsvc.observability.console.summary import Summary
from claimsvc.redis.masters import Client, Master, being_cancelled

CHANNEL = "claim:console"
_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 0.5


class Relay:
    """Publishes this instance's summaries, and hears those of the others.

    Args:
        masters: all masters of the lock.
        heard: told each summary of another instance.
    """

    def __init__(self, masters: Sequence[Master], heard: Callable[[Summary], None]) -> None:
        self._masters = tuple(masters)
        self._heard = heard
        self._turn = 0
        self._subscribed: set[Master] = set()

    @property
    def hears(self) -> bool:
        """Whether others would be heard: whether some master that answers takes our subscription."""
        return any(master.up for master in self._subscribed)

    async def listeners(self) -> int:
        """How many other instances listen on the master whose turn it is. Each master has its turn, so that one that
        is not reached from everywhere costs time only."""
        master = self._next_master()
        if master is None:
            return 0
        with contextlib.suppress(RedisError):
            answer = await master.execute_command("PUBSUB", "NUMSUB", CHANNEL)
            return int(answer[1]) - (master in self._subscribed)
        return 0

    async def publish(self, summary: Summary) -> int:
        """Tell the others, by the master whose turn it is. Returns how many have heard it.

        By each in turn here too: who listens may not reach every master.
        """
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
        """Hear the others while inside."""
        tasks = [asyncio.create_task(self._listen(master)) for master in self._masters]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, master: Master) -> None:
        """Hear what is published on one master, for ever."""
        while not being_cancelled():
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
                    while not being_cancelled():
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
