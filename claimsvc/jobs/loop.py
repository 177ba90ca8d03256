"""Dull loops that call what is done in the background."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from claimsvc.errors import TransientError

_log = structlog.get_logger("claimsvc.jobs")

_LAG_SAMPLE_SECONDS = 0.1


@asynccontextmanager
async def repeated(
    run_once: Callable[[], Awaitable[object]], *, every_seconds: float, name: str = "sample"
) -> AsyncIterator[None]:
    """Run a pass again and again while inside. What cannot be reached now is tried again the next time.

    Args:
        every_seconds: the pause between the end of one pass and the beginning of the next.
        name: what it is called in the log.
    """

    async def loop() -> None:
        told = ""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await run_once()
                told = ""
            except TransientError as error:
                # An outage is one line, and not one for each pass.
                if error.detail != told:
                    _log.info("job could not run now", job=name, error=error.detail)
                told = error.detail
            except Exception:  # noqa: BLE001 - a pass that is broken must not end those that follow
                _log.exception("job failed", job=name)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def event_loop_watched(observe: Callable[[float], None]) -> AsyncIterator[None]:
    """Tell, while inside, how many seconds late the event loop wakes a task that has slept: what every claim waits too.

    Precise to about a millisecond, which is what uvloop's timers are.
    """

    async def loop() -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(_LAG_SAMPLE_SECONDS)
            observe(max(0.0, time.monotonic() - started - _LAG_SAMPLE_SECONDS))

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
