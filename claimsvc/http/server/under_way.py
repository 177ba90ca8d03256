"""A cap on the claims that one client address has under way in this process; further ones wait for a place."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from multidict import CIMultiDictProxy

from claimsvc.errors import UnavailableError
from claimsvc.http.server.addresses import Network, address_to_cap


class UnderWay:
    """Places for claims, by address. An address that is None has no cap.

    Args:
        most: places of each address.
        trusted: the networks of the trusted proxies. All clients share the address of a proxy, so it has no
            cap where it names no client.
        timeout_seconds: how long a claim waits for a place.
    """

    def __init__(self, most: int, trusted: Sequence[Network], *, timeout_seconds: float) -> None:
        self._most = most
        self._trusted = trusted
        self._timeout_seconds = timeout_seconds
        self._taken: dict[str, int] = {}
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    def address_of(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str | None:
        """The address that a request counts for."""
        return address_to_cap(peer, headers, self._trusted)

    def enter(self, address: str | None) -> bool:
        """Take a place, if one is free; `leave` gives it back."""
        if address is None:
            return True
        taken = self._taken.get(address, 0)
        if taken >= self._most:
            return False
        self._taken[address] = taken + 1
        return True

    def leave(self, address: str | None) -> None:
        """Give a place back: to the claim of this address that has waited longest."""
        if address is None:
            return
        line = self._lines.get(address)
        while line:
            turn = line.popleft()
            if not line:
                del self._lines[address]
            if not turn.done():
                turn.set_result(None)
                return
        if self._taken[address] == 1:
            del self._taken[address]
        else:
            self._taken[address] -= 1

    @asynccontextmanager
    async def place(self, address: str | None) -> AsyncIterator[None]:
        """Have a place in the context.

        Raises:
            UnavailableError: none became free in time.
        """
        if not self.enter(address):
            await self._wait(address or "")
        try:
            yield
        finally:
            self.leave(address)

    async def _wait(self, address: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(address, deque()).append(turn)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(address)  # it came in the same iteration of the event loop
            turn.cancel()
            if isinstance(error, TimeoutError):
                raise UnavailableError("too many claims of your address are under way", dependency="claimsvc") from None
            raise
