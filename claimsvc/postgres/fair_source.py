"""Shares a pool of connections out fairly between clients."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from claimsvc.ports.clients import CLIENT
from claimsvc.postgres.connections import Borrowed, ConnectionSource, PoolTimedOutError

_LONGEST_REST_SECONDS = 0.25
# More than are served within any time-out.
_MOST_WAITING = 5000


class FairSource:
    """`ConnectionSource` that lends to clients in turns: one that asks a hundred times delays another by one statement.

    Args:
        source: lends the connections.
        size: how many it may lend at a time.
        timeout_seconds: how long to wait for one.
        rest_factor: while clients wait, a connection rests for this many times as long as it was used. Preparing and
            answering a read costs this process as much as many claims. When the process is busy, uses take longer, and
            so do the rests: reads give way to claims.
    """

    def __init__(
        self, source: ConnectionSource, *, size: int, timeout_seconds: float, rest_factor: float = 0.0
    ) -> None:
        self._source = source
        self._rest_factor = rest_factor
        self._free = size
        self._timeout_seconds = timeout_seconds
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._waiting = 0

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Borrowed]:
        await self._take()
        began_at = time.monotonic()
        try:
            async with self._source.borrow() as borrowed:
                yield borrowed
        finally:
            self._rest(time.monotonic() - began_at)

    def _rest(self, used_seconds: float) -> None:
        """Give a connection back, after a pause if others wait for it."""
        if self._rest_factor and self._lines:
            pause = min(self._rest_factor * used_seconds, _LONGEST_REST_SECONDS)
            asyncio.get_running_loop().call_later(pause, self._give_back)
        else:
            self._give_back()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        if self._waiting >= _MOST_WAITING:
            raise PoolTimedOutError("too many reads wait for a connection")
        client = CLIENT.get()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await turn
        except BaseException as error:
            # The turn may have come in the same iteration of the event loop; nobody else would get it then.
            if turn.done() and not turn.cancelled():
                self._give_back()
            else:
                self._leave(client, turn)
            if isinstance(error, TimeoutError):
                raise PoolTimedOutError("every connection of the pool is in use") from None
            raise
        finally:
            self._waiting -= 1

    def _leave(self, client: str, turn: "asyncio.Future[None]") -> None:
        turn.cancel()
        line = self._lines.get(client, deque())
        if turn in line:  # otherwise `_give_back` has skipped it
            line.remove(turn)
            if not line:
                del self._lines[client]

    def _give_back(self) -> None:
        while self._lines:
            # The first client is served, and becomes the last.
            client, line = next(iter(self._lines.items()))
            del self._lines[client]
            turn = line.popleft()
            if line:
                self._lines[client] = line
            if not turn.done():  # otherwise cancelled, and its task has not run yet
                turn.set_result(None)
                return
        self._free += 1
