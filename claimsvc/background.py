"""Tasks that run beside a context, and end with it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

# Libraries lose a cancellation now and then: redis-py does while it connects.
_CANCEL_AGAIN_SECONDS = 0.5


@asynccontextmanager
async def in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `works` as tasks while the context is active. On leaving they are cancelled, and have ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        await end(tasks)


async def end(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until all have ended. Their errors are dropped."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as retrieved
