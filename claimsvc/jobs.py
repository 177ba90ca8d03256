"""What goes on in the background: single passes that a test can call, and a dull loop that calls them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from claimsvc.domain import Coupon, StrategyName
from claimsvc.errors import TransientError
from claimsvc.ports import Counters, Storage

_log = structlog.get_logger("claimsvc.jobs")

_PAGE = 500
_LAG_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that differs from the database."""

    coupon_name: str
    counted: int
    remaining_amount: int


async def reconcile_once(
    storage: Storage, counters: Counters, *, settle_seconds: float, observe: Callable[[str, int], None]
) -> list[Drift]:
    """Forget every counter that has drifted from PostgreSQL, so that the next claim learns it anew.

    Units on their way into the database make a counter differ for a moment. So it is looked at twice, and has drifted
    only if neither side has moved between the looks.

    Args:
        settle_seconds: time between the two looks, longer than a claim takes.
        observe: told each coupon's difference, the counter less the database.
    """
    drifts: list[Drift] = []
    after: str | None = None
    while page := await storage.coupons(search=None, after=after, limit=_PAGE):
        after = page[-1].name
        drifts += await _reconcile_page(
            storage, counters, [coupon for coupon in page if coupon.strategy is StrategyName.COUNTER], settle_seconds
        )
    for drift in drifts:
        observe(drift.coupon_name, drift.counted - drift.remaining_amount)
    return drifts


async def _reconcile_page(
    storage: Storage, counters: Counters, coupons: list[Coupon], settle_seconds: float
) -> list[Drift]:
    suspects = [drift for coupon in coupons if (drift := await _drift(counters, coupon))]
    if not suspects:
        return []
    await asyncio.sleep(settle_seconds)
    again = {
        coupon.name: await _drift(counters, coupon)
        for coupon in await storage.stock([suspect.coupon_name for suspect in suspects])
    }
    drifts = [suspect for suspect in suspects if again.get(suspect.coupon_name) == suspect]
    for drift in drifts:
        await counters.forget(drift.coupon_name, drift.counted)
    return drifts


async def _drift(counters: Counters, coupon: Coupon) -> Drift | None:
    counted = await counters.count(coupon.name)
    if counted is None or counted == coupon.remaining_amount:
        return None
    return Drift(coupon.name, counted, coupon.remaining_amount)


@asynccontextmanager
async def repeated(run_once: Callable[[], Awaitable[object]], *, every_seconds: float) -> AsyncIterator[None]:
    """Run a pass again and again while inside. What cannot be reached now is tried again the next time."""

    async def loop() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await run_once()
            except TransientError as error:
                _log.info("job could not run now", error=error.detail)
            except Exception:  # noqa: BLE001 - a pass that is broken must not end those that follow
                _log.exception("job failed")

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
