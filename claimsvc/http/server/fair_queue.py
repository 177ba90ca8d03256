"""Turns for those who ask at the same time: a client with many connections is served no more often than one with few.

The event loop would begin every request that has arrived before it looks at any that follows, so whoever has three
hundred connections makes everybody else wait for three hundred requests. Here each turn of the loop begins a few, one
of each address after the other; and answers, which a batch has for all its claims at once, are given likewise. An
address that crowds out all others together gets one of each turn, because whatever waits for PostgreSQL or a master is
held up by whole turns. An address that is alone (a proxy in front of everybody, say) is never held up.
"""

import asyncio
import time
from collections import deque

# Requests that one turn begins, or answers: well below one millisecond of work.
_PER_TURN = 8
# An address crowds the others out if so many times as many of its requests wait as of all others together. Two proxies
# that share the load, even badly, are far from it.
_CROWDS = 16
# How long an address counts among those that ask at the same time.
_RECENT_SECONDS = 0.5


class FairQueue:
    """Where requests wait for their turn to begin, in a line for each address."""

    def __init__(self) -> None:
        self._left = _PER_TURN
        self._turn_due = False
        self._lines: dict[str | None, deque[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._alone: str | None = None
        self._shared_until = 0.0

    def is_free(self, address: str | None) -> bool:
        """Whether a request of this address may begin at once; if not, it waits for its `turn`."""
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
        """The next free turn in the line of this address."""
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
            # The first line gives one, and becomes the last.
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
        """Give the next one of this line its turn; the line goes to the end. Whether that one still wanted it."""
        turn = line.popleft()
        self._waiting -= 1
        if line:
            self._lines[address] = line
        if turn.done():
            return False
        turn.set_result(None)
        return True
