"""The strategy that each coupon was given when it was created."""

import asyncio
from collections.abc import Mapping

from claimsvc.domain import Outcome, StrategyName
from claimsvc.ports import Storage, Strategy

# Names and strategies never change, so what was read once is kept; this bounds the memory that it takes.
_REMEMBERED = 100_000
_READ_AT_ONCE = 1000


class StrategyByCoupon:
    """`ports.Claims`: hands each claim to the strategy of its coupon.

    A name that is not known yet is read once. A coupon that does not exist is left to PostgreSQL alone to say so.
    """

    def __init__(self, strategies: Mapping[StrategyName, Strategy], storage: Storage) -> None:
        self._strategies = strategies
        self._storage = storage
        self._known: dict[str, Strategy] = {}
        self._asked: dict[str, asyncio.Future[Strategy]] = {}
        self._reader: asyncio.Task[None] | None = None

    def claim(self, coupon_name: str, user_id: str) -> "asyncio.Future[Outcome]":
        strategy = self._known.get(coupon_name)
        if strategy is None:
            return asyncio.ensure_future(self._learn_and_claim(coupon_name, user_id))
        return strategy.claim(coupon_name, user_id)

    async def drain(self) -> None:
        for strategy in self._strategies.values():
            await strategy.drain()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _learn_and_claim(self, coupon_name: str, user_id: str) -> Outcome:
        """Wait until the name is read. All who wait for a name share one look at it, and all names one query."""
        asked = self._asked.get(coupon_name)
        if asked is None:
            asked = self._asked[coupon_name] = asyncio.get_running_loop().create_future()
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read_what_is_asked())
        strategy = await asyncio.shield(asked)
        return await strategy.claim(coupon_name, user_id)

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


def _answer(asked: "asyncio.Future[Strategy]", answer: Strategy | Exception) -> None:
    if isinstance(answer, Exception):
        asked.set_exception(answer)
        asked.exception()  # whoever waited may be gone; that is no defect
    else:
        asked.set_result(answer)
