"""Shares a pool of connections out fairly between clients."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from claimsvc.ports.clients import CLIENT
from claimsvc.postgres.connections import Borrowed, ConnectionSource, PoolTimedOutError


class FairSource:
    """`ConnectionSource` that lends to clients in turns: one that asks a hundred times delays another by one statement.

    Args:
        source: lends the connections.
        size: how many it may lend at a time.
        timeout_seconds: how long to wait for one.
    """

    def __init__(self, source: ConnectionSource, *, size: int, timeout_seconds: float) -> None:
        self._source = source
        self._free = size
        self._timeout_seconds = timeout_seconds
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Borrowed]:
        await self._take()
        try:
            async with self._source.borrow() as borrowed:
                yield borrowed
        finally:
            self._give_back()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        client = CLIENT.get()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
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

    def _leave(self, client: str, turn: "asyncio.Future[None]") -> None:
        turn.cancel()
        line = self._lines.get(client, deque())
        if turn in line:  # otherwise `_give_back` has skipped it
            line.remove(turn)
            if not line:
                del self._lines[client]

    def _give_back(self) -> None:
        if not self._lines:
            self._free += 1
            return
        # The first client is served, and becomes the last.
        client, line = next(iter(self._lines.items()))
        del self._lines[client]
        turn = line.popleft()
        if line:
            self._lines[client] = line
        if turn.done():  # cancelled, and its task has not run yet
            self._give_back()
        else:
            turn.set_result(None)
