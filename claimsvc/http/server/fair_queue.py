"""Fair scheduling of requests between client addresses.

The event loop begins every request that has arrived before it polls for more, so a client with 300 connections would
make every other client wait for 300 requests. With this queue, each iteration of the loop begins a few requests, in
round-robin order of their addresses. Responses are scheduled in the same way, because a batch completes all its claims
at the same moment. An address with far more waiting requests than all others together gets one request per iteration,
because callbacks of PostgreSQL and Redis have to wait for the iteration to end. A single address (such as a proxy in
front of all clients) is never delayed.
"""

import asyncio
import time
from collections import deque

# Requests that are begun or answered in one iteration of the event loop: well below one millisecond of work.
_PER_TURN = 8
# An address crowds the others out if it has this many times as many waiting requests as all others together. Two
# proxies that share the load, even unevenly, stay far below.
_CROWDS = 16
# Another address is considered active for this long after its last request.
_RECENT_SECONDS = 0.5


class FairQueue:
    """A queue of requests for each address, served round-robin."""

    def __init__(self) -> None:
        self._left = _PER_TURN
        self._turn_due = False
        self._lines: dict[str | None, deque[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._alone: str | None = None
        self._shared_until = 0.0

    def is_free(self, address: str | None) -> bool:
        """Whether a request of this address may begin now; if not, it has to wait for its `turn`."""
        if address != self._alone:
            self._alone, self._shared_until = address, time.monotonic() + _RECENT_SECONDS
        elif time.monotonic() >= self._shared_until and not self._lines:
            return True
        if self._lines or not self._left:
            return False
        self._left -= 1
        self._plan_turn()
        return True

    def turn(self, address: str | None) -> "asyncio.Future[None]":
        """Queue a request of this address; the future is resolved when the request may begin."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(address, deque()).append(turn)
        self._waiting += 1
        self._plan_turn()
        return turn

    def _plan_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_due = False
        self._left = _PER_TURN
        crowd: tuple[str | None, deque[asyncio.Future[None]]] | None = None
        while self._left and self._lines:
            # Serve one request of the first address, which then becomes the last.
            address, line = next(iter(self._lines.items()))
            del self._lines[address]
            if crowd is None and self._crowds(line):
                crowd = address, line
                self._left -= 1
                continue
            self._left -= self._serve(address, line)
        if crowd is not None:
            self._serve(*crowd)
        if self._lines:
            self._plan_turn()

    def _crowds(self, line: "deque[asyncio.Future[None]]") -> bool:
        return len(line) > _CROWDS * (1 + self._waiting - len(line))

    def _serve(self, address: str | None, line: "deque[asyncio.Future[None]]") -> bool:
        """Serve the next request of an address, and move the address to the end.

        Returns:
            False if the request was cancelled meanwhile.
        """
        turn = line.popleft()
        self._waiting -= 1
        if line:
            self._lines[address] = line
        if turn.done():
            return False
        turn.set_result(None)
        return True
