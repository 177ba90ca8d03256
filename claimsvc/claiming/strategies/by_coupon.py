"""Selects the strategy of each claim: the one its coupon was created with."""

import asyncio
import math
import time
from collections.abc import Mapping
from itertools import islice

from claimsvc.claiming.batching import outcome_unknown
from claimsvc.claiming.strategies.by_type import FirstOfType, Look
from claimsvc.domain import ClaimOptions, ClaimOutcome, Coupon, StrategyName
from claimsvc.errors import UnavailableError
from claimsvc.ports import Coupons, Joins, PendingOutcome, Stages, Strategy

_CACHED_STRATEGIES = 100_000
# A coupon's strategy never changes, but a purged coupon may be created anew with another one.
_KNOWN_SECONDS = 1.0
# A strategy is read again so long before that, so that no claim of a busy coupon waits for it.
_READ_AHEAD_SECONDS = 0.5
# If reading a known strategy again takes longer or fails, it is used for another second: PostgreSQL decides each claim
# rightly under any strategy, and claims that wait here are not counted by the waiting room.
_READ_AGAIN_SECONDS = 0.25
_READ_AT_ONCE = 1000
# Each query reads so many more names that were claimed of late and are to be read again soon: one query for all of
# them costs far less than one for each, and their next claims need not wait.
_READ_ALONG = 250
# How many names are remembered for that, and for how long after a claim (at least).
_USED_REMEMBERED = 2000
_USED_SECONDS = 5.0
# How often all of them are looked through.
_LOOK_ALONG_SECONDS = 0.1


class _WithQueue:
    """How claims of a coupon with a queue are admitted: they wait for their turn, and with a ticket they are made."""

    def __init__(self, strategy: Strategy, joins: Joins) -> None:
        self._strategy = strategy
        self._joins = joins

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        if options is None or options.ticket is None:
            return self._joins.join(coupon_name, user_id, options)
        return self._strategy.claim(coupon_name, user_id, options)


class StrategyByCoupon:
    """`ports.AnyClaims`: passes each claim to the strategy of its coupon.

    The strategy of a name is read when it is not known, and again while it is used: claims wait for that only if it was
    read a second ago. Claims of a coupon that does not exist go to `row_lock`, so that PostgreSQL reports it.

    Args:
        strategies: by their names.
        coupons: reads coupons.
        look: `Admission.look`, for claims that name a type.
        timeout_seconds: longest wait of a claim whose coupon's strategy is not cached. Other claims need no timer
            here: the batcher enforces their deadlines.
        joins: lets claims wait in queues; None where there are none.
    """

    def __init__(
        self,
        strategies: Mapping[StrategyName, Strategy],
        coupons: Coupons,
        look: Look,
        *,
        timeout_seconds: float,
        joins: Joins | None = None,
    ) -> None:
        self._joins = joins
        self._timeout_seconds = timeout_seconds
        self._strategies = strategies
        self._coupons = coupons
        # By name: the strategy, and until when it is used without reading it again (monotonic seconds).
        self._known: dict[str, tuple[Strategy | _WithQueue, float]] = {}
        self._unread: dict[str, asyncio.Future[Strategy | _WithQueue]] = {}
        self._reader: asyncio.Task[None] | None = None
        # The names that were claimed of late, and those of the time before.
        self._used: dict[str, None] = {}
        self._used_before: dict[str, None] = {}
        self._used_since = 0.0
        self._looked_along_at = 0.0
        self._first_of_type = FirstOfType(self.claim, look, coupons)

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        if options is not None and options.prefers_ticket and options.ticket is None and self._joins is not None:
            return self._joins.join(coupon_name, user_id, options)
        strategy, known_until = self._known.get(coupon_name, (None, 0.0))
        left_seconds = known_until - time.monotonic()
        if len(self._used) < _USED_REMEMBERED:
            self._used[coupon_name] = None
        if strategy is not None and 0 <= left_seconds < _READ_AHEAD_SECONDS:
            self._begin_reading(coupon_name)
        if strategy is None or left_seconds < 0:
            answer = PendingOutcome()
            answer.follow(self._learn_and_claim(coupon_name, user_id, options, answer))
            return answer
        return strategy.claim(coupon_name, user_id, options)

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        answer.follow(self._claim_first(coupon_type, user_id, options))
        return answer

    async def _claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None) -> ClaimOutcome:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._first_of_type.claim(coupon_type, user_id, options)
        except TimeoutError:
            raise outcome_unknown() from None

    async def drain(self) -> None:
        for strategy in self._strategies.values():
            await strategy.drain()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _learn_and_claim(
        self, coupon_name: str, user_id: str, options: ClaimOptions | None, answer: PendingOutcome
    ) -> ClaimOutcome:
        """Wait until the coupon's strategy is read. One query reads all names that claims wait for."""
        unread = self._begin_reading(coupon_name)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                strategy = await asyncio.shield(unread)
                # A timeout cancels no decision: the batcher drops a claim without a caller, or decides it anyway.
                decided = strategy.claim(coupon_name, user_id, options)
                try:
                    return await decided
                finally:
                    answer.stages = getattr(decided, "stages", Stages())
        except TimeoutError:
            raise outcome_unknown() from None

    def _begin_reading(self, coupon_name: str) -> "asyncio.Future[Strategy | _WithQueue]":
        """Read the coupon's strategy, unless it is being read; returns the future of it."""
        unread = self._unread.get(coupon_name)
        if unread is None:
            loop = asyncio.get_running_loop()
            unread = self._unread[coupon_name] = loop.create_future()
            if coupon_name in self._known:
                loop.call_later(_READ_AGAIN_SECONDS, self._stop_reading, coupon_name, unread)
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read_strategies())
                self._reader.add_done_callback(self._reader_ended)
        return unread

    async def _read_strategies(self) -> None:
        while self._unread:
            names = list(self._unread)[:_READ_AT_ONCE]
            now = time.monotonic()
            along = self._read_along(now)
            try:
                coupons = await self._coupons.stock(names + along)
                found = {coupon.name: self._strategy_of(coupon) for coupon in coupons}
            except Exception as error:  # noqa: BLE001 - the waiting claims receive it
                for name in names:
                    self._resolve(name, self._known_for_longer(name) or error)
                continue
            if len(self._known) + len(found) > _CACHED_STRATEGIES:
                self._known.clear()
            for name in names + along:
                if name in found:
                    self._known[name] = found[name], now + _KNOWN_SECONDS
                else:
                    self._known.pop(name, None)
                self._resolve(name, found.get(name, self._strategies[StrategyName.ROW_LOCK]))

    def _strategy_of(self, coupon: Coupon) -> "Strategy | _WithQueue":
        strategy = self._strategies[coupon.strategy]
        return _WithQueue(strategy, self._joins) if coupon.has_queue and self._joins is not None else strategy

    def _read_along(self, now: float) -> list[str]:
        """Return names that nobody waits for, but that are used and have not been read for a while."""
        if now - self._used_since > _USED_SECONDS:
            self._used_before, self._used = self._used, {}
            self._used_since = now
        if now - self._looked_along_at < _LOOK_ALONG_SECONDS:
            return []
        due = (
            name
            for name in self._used | self._used_before
            if name not in self._unread and self._known_until(name) < now + _READ_AHEAD_SECONDS
        )
        along = list(islice(due, _READ_ALONG))
        if len(along) < _READ_ALONG:
            self._looked_along_at = now
        return along

    def _known_until(self, coupon_name: str) -> float:
        """Return until when a strategy is used without reading it again; for ever if it is not known at all."""
        _, known_until = self._known.get(coupon_name, (None, math.inf))
        return known_until

    def _stop_reading(self, coupon_name: str, unread: "asyncio.Future[Strategy | _WithQueue]") -> None:
        """Let claims go on with the strategy that was known, unless the coupon was read meanwhile."""
        if self._unread.get(coupon_name) is unread and (strategy := self._known_for_longer(coupon_name)) is not None:
            self._resolve(coupon_name, strategy)

    def _known_for_longer(self, coupon_name: str) -> "Strategy | _WithQueue | None":
        """Use a known strategy for another second, and return it; None if it is not known."""
        strategy, _ = self._known.get(coupon_name, (None, 0.0))
        if strategy is not None:
            self._known[coupon_name] = strategy, time.monotonic() + _KNOWN_SECONDS
        return strategy

    def _resolve(self, coupon_name: str, result: "Strategy | _WithQueue | Exception") -> None:
        unread = self._unread.pop(coupon_name, None)
        if unread is None:
            return  # its claims went on with the strategy that was known
        if isinstance(result, Exception):
            unread.set_exception(result)
            unread.exception()  # marks it as retrieved: no claim may be waiting for it any more
        else:
            unread.set_result(result)

    def _reader_ended(self, reader: "asyncio.Task[None]") -> None:
        """Fail the claims that still wait, if the reader was cancelled. The next claim starts another reader."""
        # If a claim has arrived since the reader ended, another reader runs already.
        while reader is self._reader and self._unread:
            stopping = UnavailableError("this instance is stopping", dependency="claimsvc")
            self._resolve(next(iter(self._unread)), stopping)
