"""The strategy that each coupon was given when it was created."""

import asyncio
from collections.abc import Mapping

from claimsvc.batching import outcome_unknown
from claimsvc.domain import Outcome, StrategyName, Want
from claimsvc.errors import UnavailableError
from claimsvc.ports import ClaimAnswer, Stages, Storage, Strategy

# Names and strategies never change, so what was read once is kept; this bounds the memory that it takes.
_REMEMBERED = 100_000
_READ_AT_ONCE = 1000


class StrategyByCoupon:
    """`ports.Claims`: hands each claim to the strategy of its coupon.

    A name that is not known yet is read once. A coupon that does not exist is left to PostgreSQL alone to say so.

    Args:
        timeout_seconds: longest wait of a claim whose coupon is not known yet. Of others the batches keep the time,
            without a timer for each.
    """

    def __init__(
        self, strategies: Mapping[StrategyName, Strategy], storage: Storage, *, timeout_seconds: float
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._strategies = strategies
        self._storage = storage
        self._known: dict[str, Strategy] = {}
        self._asked: dict[str, asyncio.Future[Strategy]] = {}
        self._reader: asyncio.Task[None] | None = None

    def claim(self, coupon_name: str, user_id: str, want: Want | None = None) -> ClaimAnswer:
        strategy = self._known.get(coupon_name)
        if strategy is None:
            answer = ClaimAnswer()
            answer.follow(self._learn_and_claim(coupon_name, user_id, want, answer))
            return answer
        return strategy.claim(coupon_name, user_id, want)

    async def drain(self) -> None:
        for strategy in self._strategies.values():
            await strategy.drain()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _learn_and_claim(self, coupon_name: str, user_id: str, want: Want | None, answer: ClaimAnswer) -> Outcome:
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
                decided = strategy.claim(coupon_name, user_id, want)
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
