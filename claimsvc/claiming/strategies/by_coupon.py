"""The strategy that each coupon was given when it was created."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from claimsvc.claiming.batching import outcome_unknown
from claimsvc.domain import (
    AlreadyClaimed,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    HoldContinued,
    KeyReused,
    Replayed,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import UnavailableError
from claimsvc.ports import PendingOutcome, Shelf, Stages, Strategy

# Names and strategies never change, so what was read once is kept; this bounds the memory that it takes.
_REMEMBERED = 100_000
_READ_AT_ONCE = 1000
# What is on offer changes slowly. Who finds nothing in what was read before reads it anew.
_OFFER_BELIEVED_SECONDS = 1.0
_TYPES_REMEMBERED = 1000
# Anything else is a reason to try the next coupon.
_ANSWERS = (Claimed, AlreadyClaimed, HoldContinued, Replayed, KeyReused)


class StrategyByCoupon:
    """`ports.AnyClaims`: hands each claim to the strategy of its coupon.

    A name that is not known yet is read once. A coupon that does not exist is left to PostgreSQL alone to say so.

    Args:
        timeout_seconds: longest wait of a claim whose coupon is not known yet. Of others the batches keep the time,
            without a timer for each.
    """

    def __init__(self, strategies: Mapping[StrategyName, Strategy], storage: Shelf, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._strategies = strategies
        self._storage = storage
        self._known: dict[str, Strategy] = {}
        self._asked: dict[str, asyncio.Future[Strategy]] = {}
        self._reader: asyncio.Task[None] | None = None
        # By type: when a look at what is on offer was begun, and what it comes to.
        self._offers: dict[str | None, tuple[float, asyncio.Task[list[str]]]] = {}

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        strategy = self._known.get(coupon_name)
        if strategy is None:
            answer = PendingOutcome()
            answer.follow(self._learn_and_claim(coupon_name, user_id, options, answer))
            return answer
        return strategy.claim(coupon_name, user_id, options)

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        answer.follow(self._claim_first(coupon_type, user_id, options))
        return answer

    async def _claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None) -> ClaimOutcome:
        """Ask coupon after coupon. Of a keyed claim the last refusal is kept, and those on the way are not."""
        is_keyed = options is not None and options.once is not None
        on_the_way = replace(options, is_final=False) if options is not None and is_keyed else options
        arrived_at = time.monotonic()
        tried = [""]
        refusal: ClaimOutcome = UnknownCoupon()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for read_since in (arrived_at - _OFFER_BELIEVED_SECONDS, arrived_at):
                    for coupon_name in await self._on_offer(coupon_type, read_since):
                        if coupon_name not in tried:
                            tried.append(coupon_name)
                            refusal = await self.claim(coupon_name, user_id, on_the_way)
                            if isinstance(refusal, _ANSWERS):
                                return refusal
                return await self.claim(tried[-1], user_id, options) if is_keyed else refusal
        except TimeoutError:
            raise outcome_unknown() from None

    async def _on_offer(self, coupon_type: str | None, read_since: float) -> list[str]:
        """What is on offer, in a look at it that was begun at `read_since` (monotonic seconds) or later."""
        begun_at, look = self._offers.get(coupon_type, (-1.0, None))
        if look is None or begun_at < read_since:
            if len(self._offers) >= _TYPES_REMEMBERED:
                self._offers.clear()
            look = asyncio.create_task(self._storage.claimable_coupons(coupon_type))
            self._offers[coupon_type] = time.monotonic(), look
            look.add_done_callback(lambda ended: self._forget_failed(coupon_type, ended))
        return await asyncio.shield(look)

    def _forget_failed(self, coupon_type: str | None, look: "asyncio.Task[list[str]]") -> None:
        if (look.cancelled() or look.exception() is not None) and self._offers.get(coupon_type, (0, None))[1] is look:
            del self._offers[coupon_type]

    async def drain(self) -> None:
        for strategy in self._strategies.values():
            await strategy.drain()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _learn_and_claim(
        self, coupon_name: str, user_id: str, options: ClaimOptions | None, answer: PendingOutcome
    ) -> ClaimOutcome:
        """Wait until the name is read. All who wait for a name share one look at it, and all names one query."""
        asked = self._asked.get(coupon_name)
        if asked is None:
            asked = self._asked[coupon_name] = asyncio.get_running_loop().create_future()
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read_what_is_asked())
                self._reader.add_done_callback(self._reader_ended)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                strategy = await asyncio.shield(asked)
                # Ending the wait cancels no decision: a claim without a caller is passed over, or decided all the same.
                decided = strategy.claim(coupon_name, user_id, options)
                try:
                    return await decided
                finally:
                    answer.stages = getattr(decided, "stages", Stages())
        except TimeoutError:
            raise outcome_unknown() from None

    async def _read_what_is_asked(self) -> None:
        while self._asked:
            names = list(self._asked)[:_READ_AT_ONCE]
            try:
                found = {coupon.name: self._strategies[coupon.strategy] for coupon in await self._storage.stock(names)}
            except Exception as error:  # noqa: BLE001 - it is the answer of those who wait
                for name in names:
                    _answer(self._asked.pop(name), error)
                continue
            if len(self._known) + len(found) > _REMEMBERED:
                self._known.clear()
            self._known.update(found)
            for name in names:
                _answer(self._asked.pop(name), found.get(name, self._strategies[StrategyName.ROW_LOCK]))

    def _reader_ended(self, reader: "asyncio.Task[None]") -> None:
        """Whatever ended it, nobody is left waiting for a name that nobody reads: whoever asks next reads it anew."""
        # If somebody has asked since it ended, another reads by now.
        while reader is self._reader and self._asked:
            _answer(self._asked.popitem()[1], UnavailableError("this instance is stopping", dependency="claimsvc"))


def _answer(asked: "asyncio.Future[Strategy]", answer: Strategy | Exception) -> None:
    if isinstance(answer, Exception):
        asked.set_exception(answer)
        asked.exception()  # whoever waited may be gone; that is no defect
    else:
        asked.set_result(answer)
