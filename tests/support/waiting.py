"""Waiting for something to come about: the one place that looks again and again, so that tests say only what for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

PATIENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.01

Condition = Callable[[], Any | Awaitable[Any]]
"""What is asked until the answer is true; it may have to be awaited."""


async def comes_about(condition: Condition, within_seconds: float) -> bool:
    """Wait for a condition, so long at most. Returns whether it came about."""
    deadline = time.monotonic() + within_seconds
    while True:
        found = condition()
        if await found if isawaitable(found) else found:
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_PAUSE_SECONDS)


async def until(condition: Condition, what: str, *, within_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition that must come about.

    Args:
        condition: see `Condition`.
        what: it is, for the message.
        within_seconds: the longest wait.

    Raises:
        AssertionError: it did not come about in time.
    """
    assert await comes_about(condition, within_seconds), f"waited {within_seconds:g} s in vain until {what}"


async def quickest(measured: Callable[[], Awaitable[float]], enough_seconds: float, *, tries: int = 5) -> float:
    """The shortest of a few tries, up to the first that is quick enough.

    Other work on this machine may keep one try waiting; what is slow by itself keeps all of them waiting.

    Args:
        measured: does the work anew, and returns how many seconds it took.
        enough_seconds: a try below this is the last one.
        tries: how many at most.
    """
    best = await measured()
    for _ in range(tries - 1):
        if best < enough_seconds:
            break
        best = min(best, await measured())
    return best


def block_until(condition: Callable[[], Any], what: str, *, within_seconds: float = PATIENCE_SECONDS) -> None:
    """The same where no event loop runs, or may be kept waiting."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_seconds:g} s in vain until {what}"
        time.sleep(_PAUSE_SECONDS)
