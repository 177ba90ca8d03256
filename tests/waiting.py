"""Waiting for something to come about: the one place that looks again and again, so that tests say only what for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

PATIENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.005


async def until(
    condition: Callable[[], Any | Awaitable[Any]], what: str, *, within_seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for a condition, which may have to be awaited itself.

    Args:
        condition: is asked until what it says is true.
        what: it is, for the message.
        within_seconds: the longest wait.

    Raises:
        AssertionError: it did not come about in time.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        found = condition()
        if await found if isawaitable(found) else found:
            return
        assert time.monotonic() < deadline, f"waited {within_seconds:g} s in vain until {what}"
        await asyncio.sleep(_PAUSE_SECONDS)


def block_until(condition: Callable[[], Any], what: str, *, within_seconds: float = PATIENCE_SECONDS) -> None:
    """The same where no event loop runs, or may be kept waiting."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_seconds:g} s in vain until {what}"
        time.sleep(_PAUSE_SECONDS)
