"""Loops that call a function on a schedule."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from claimsvc.background import in_background
from claimsvc.errors import TransientError

_log = structlog.get_logger("claimsvc.jobs")

_LAG_SAMPLE_SECONDS = 0.1


@asynccontextmanager
async def repeated(
    run_once: Callable[[], Awaitable[object]], *, every_seconds: float, name: str = "sample"
) -> AsyncIterator[None]:
    """Call `run_once` repeatedly while the context is active. Errors are logged and do not end the loop.

    Args:
        run_once: makes one pass.
        every_seconds: the pause between the end of one pass and the start of the next.
        name: the name of the job in the log.
    """

    async def loop() -> None:
        last_error = ""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await run_once()
                last_error = ""
            except TransientError as error:
                # Log an outage once, not at every pass.
                if error.detail != last_error:
                    _log.info("job could not run now", job=name, error=error.detail)
                last_error = error.detail
            except Exception:  # noqa: BLE001 - a failed pass must not end the loop
                _log.exception("job failed", job=name)

    async with in_background(loop()):
        yield


@asynccontextmanager
async def event_loop_watched(observe: Callable[[float], None]) -> AsyncIterator[None]:
    """Measure the event loop's lag while the context is active: by how much a sleeping task wakes too late.

    Every claim is delayed by this lag too. Precise to about a millisecond, the resolution of uvloop's timers.

    Args:
        observe: receives each measurement (seconds).
    """

    async def loop() -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(_LAG_SAMPLE_SECONDS)
            observe(max(0.0, time.monotonic() - started - _LAG_SAMPLE_SECONDS))

    async with in_background(loop()):
        yield
