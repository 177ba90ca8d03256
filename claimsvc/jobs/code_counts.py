"""Counts of codes, kept in Redis for whoever reads them, and brought there after what changes them was committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

import structlog

from claimsvc.domain import CodeCounts
from claimsvc.errors import TransientError
from claimsvc.ports import CodeCounters, Codes

_log = structlog.get_logger("claimsvc.echo")

# So long changes are waited for before they are counted together.
_GATHER_SECONDS = 0.2
# To count takes no more of the database's time than one part in so many.
_REST = 10
_RETRY_SECONDS = 1.0


class CodeEcho:
    """Counts types anew in PostgreSQL after their codes have changed, and puts the result into Redis.

    Who begins to count asks Redis for a number first, and of two results the one with the higher number stays. It was
    begun after the other, so it has seen at least as much: once nothing changes any more, the last one that stays has
    seen everything. Only a crash between a commit and its count leaves a wrong one, until `refresh`.
    """

    def __init__(self) -> None:
        self._types: set[str | None] = set()
        self._called = asyncio.Event()

    def changed(self, types: Collection[str | None]) -> None:
        """Codes of these types have changed, and it is committed."""
        self._types.update(types)
        self._called.set()

    @asynccontextmanager
    async def running(self, codes: Codes, counters: CodeCounters) -> AsyncIterator[None]:
        """Count while inside; on leaving, what has changed by then a last time."""
        task = asyncio.create_task(self._count_on(codes, counters))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(TransientError, TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    await self._count(codes, counters)

    async def _count_on(self, codes: Codes, counters: CodeCounters) -> None:
        while True:
            await self._called.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._called.clear()
            began = time.monotonic()
            try:
                await self._count(codes, counters)
            except TransientError as error:
                _log.info("codes could not be counted now", error=error.detail)
                self._called.set()
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - a count that is broken must not end those that follow
                _log.exception("counting codes failed")
            await asyncio.sleep(_REST * (time.monotonic() - began))

    async def _count(self, codes: Codes, counters: CodeCounters) -> None:
        while self._types:
            coupon_type = self._types.pop()
            try:
                await count_once(codes, counters, coupon_type)
            except BaseException:
                self._types.add(coupon_type)
                raise


async def count_once(codes: Codes, counters: CodeCounters, coupon_type: str | None) -> None:
    """Count one type, and put the result into Redis unless a newer one is there."""
    number = await counters.begin(coupon_type)
    while not await counters.put(coupon_type, number, await codes.count(coupon_type)):
        number = await counters.begin(coupon_type)


async def refresh(codes: Codes, counters: CodeCounters) -> None:
    """Take codes that have expired out of stock, and count every type: whatever went wrong before is right again."""
    while await codes.expire_due():
        pass
    for coupon_type in await codes.types():
        await count_once(codes, counters, coupon_type)


async def read_counts(codes: Codes, counters: CodeCounters, coupon_type: str | None) -> CodeCounts:
    """What Redis has; where it has nothing, or does not answer, what PostgreSQL says."""
    with suppress(TransientError):
        if (counts := await counters.read(coupon_type)) is not None:
            return counts
    return await codes.count(coupon_type)
