"""Keeps the counts of codes in Redis up to date. Types are counted after a change to their codes was committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

import structlog

from claimsvc.background import in_background
from claimsvc.domain import CodeCounts
from claimsvc.errors import TransientError
from claimsvc.ports import CodeCounters, Codes

_log = structlog.get_logger("claimsvc.echo")

# Changes within this time are counted together.
_GATHER_SECONDS = 0.2
# After a count, pause for this multiple of its duration, to limit the load on the database.
_PAUSE_FACTOR = 10
_RETRY_SECONDS = 1.0
HEED_SECONDS = 0.5
"""The pause between two looks for changes by commands."""


class CodeCountUpdater:
    """Counts the types whose codes have changed in PostgreSQL, and stores the results in Redis.

    Each count takes a number from Redis before it starts; of two results the one with the higher number is kept. It
    started later, so it has seen at least the same changes. Only a crash between a commit and its count leaves a wrong
    count, until the next `refresh_code_counts`.
    """

    def __init__(self) -> None:
        self._types: set[str | None] = set()
        self._has_changes = asyncio.Event()

    def changed(self, types: Collection[str | None]) -> None:
        """Schedule a count of these types. Call it after the change was committed."""
        if types:
            self._types.update(types)
            self._has_changes.set()

    @asynccontextmanager
    async def running(self, codes: Codes, counters: CodeCounters) -> AsyncIterator[None]:
        """Count in the background while the context is active; on leaving, count the remaining changes."""
        try:
            async with in_background(self._run(codes, counters)):
                yield
        finally:
            with suppress(TransientError, TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    await self._count(codes, counters)

    async def _run(self, codes: Codes, counters: CodeCounters) -> None:
        while True:
            await self._has_changes.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._has_changes.clear()
            started = time.monotonic()
            try:
                await self._count(codes, counters)
            except TransientError as error:
                _log.info("codes could not be counted now", error=error.detail)
                self._has_changes.set()
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - a failed count must not end the loop
                _log.exception("counting codes failed")
            await asyncio.sleep(_PAUSE_FACTOR * (time.monotonic() - started))

    async def _count(self, codes: Codes, counters: CodeCounters) -> None:
        # Only those that wait now: while claims go on, a type is changed again before it is counted.
        due, self._types = self._types, set()
        try:
            while due:
                coupon_type = due.pop()
                try:
                    await count_once(codes, counters, coupon_type)
                except BaseException:
                    due.add(coupon_type)
                    raise
        finally:
            self._types |= due


async def count_once(codes: Codes, counters: CodeCounters, coupon_type: str | None) -> None:
    """Count one type and store the result in Redis, unless a newer result is stored.

    Raises:
        UnavailableError: PostgreSQL or Redis does not answer.
    """
    number = await counters.begin(coupon_type)
    while not await counters.put(coupon_type, number, await codes.count(coupon_type)):
        number = await counters.begin(coupon_type)


async def heed_changes(codes: Codes, updater: CodeCountUpdater) -> None:
    """Schedule a count of the types whose codes were changed by commands, which do not count themselves."""
    updater.changed(await codes.changed_elsewhere())


async def refresh_code_counts(codes: Codes, counters: CodeCounters) -> None:
    """Take expired codes out of stock, then count every type. Corrects counts that a crash or an outage left wrong."""
    while await codes.expire_due():
        pass
    for coupon_type in await codes.types():
        await count_once(codes, counters, coupon_type)


async def read_counts(codes: Codes, counters: CodeCounters, coupon_type: str | None) -> CodeCounts:
    """Return the counts of a type from Redis; from PostgreSQL if Redis has none or does not answer."""
    with suppress(TransientError):
        if (counts := await counters.read(coupon_type)) is not None:
            return counts
    return await codes.count(coupon_type)
