"""The strategy that each coupon was given when it was created."""

from collections.abc import Mapping

from claimsvc.domain import Outcome, StrategyName
from claimsvc.ports import Storage, Strategy

# Names and strategies never change, so what was read once is kept; this bounds the memory that it takes.
_REMEMBERED = 100_000


class StrategyByCoupon:
    """`ports.Claims`: hands each claim to the strategy of its coupon.

    A name that is not known yet is read once. A coupon that does not exist is left to PostgreSQL alone to say so.
    """

    def __init__(self, strategies: Mapping[StrategyName, Strategy], storage: Storage) -> None:
        self._strategies = strategies
        self._storage = storage
        self._known: dict[str, Strategy] = {}

    async def claim(self, coupon_name: str, user_id: str) -> Outcome:
        strategy = self._known.get(coupon_name) or await self._learn(coupon_name)
        return await strategy.claim(coupon_name, user_id)

    async def drain(self) -> None:
        for strategy in self._strategies.values():
            await strategy.drain()

    async def _learn(self, coupon_name: str) -> Strategy:
        for coupon in await self._storage.stock([coupon_name]):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[coupon_name] = self._strategies[coupon.strategy]
            return self._known[coupon_name]
        return self._strategies[StrategyName.ROW_LOCK]
