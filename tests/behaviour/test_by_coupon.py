"""Each claim goes to the strategy of its coupon, and names are read together."""

import asyncio
from collections.abc import Sequence

import pytest

from claimsvc.domain import Claimed, Coupon, Outcome, SoldOut, StrategyName, UnknownCoupon
from claimsvc.errors import UnavailableError
from claimsvc.ports import Strategy
from claimsvc.strategies import StrategyByCoupon
from tests.behaviour.instances import open_instance


class Noting:
    """A strategy that notes what it was asked, and passes it on."""

    def __init__(self, strategy: Strategy) -> None:
        self.name = strategy.name
        self.asked: list[str] = []
        self._strategy = strategy

    def claim(self, coupon_name: str, user_id: str) -> "asyncio.Future[Outcome]":
        self.asked.append(coupon_name)
        return self._strategy.claim(coupon_name, user_id)

    async def drain(self) -> None:
        await self._strategy.drain()


async def test_each_coupon_is_claimed_by_its_own_strategy(database_url: str, redis_urls: tuple[str, ...]) -> None:
    async with open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance:
        noting = {name: Noting(instance.strategy) for name in StrategyName}
        by_coupon = StrategyByCoupon(noting, instance.storage)
        for name in StrategyName:
            await instance.storage.create_coupon(f"by-{name}", 1, name)
        for _ in range(2):
            for name in StrategyName:
                await by_coupon.claim(f"by-{name}", "ada")
        assert [noting[name].asked for name in StrategyName] == [[f"by-{name}"] * 2 for name in StrategyName]
        assert await by_coupon.claim("nothing", "ada") == UnknownCoupon()


async def test_a_herd_on_coupons_that_were_never_claimed_reads_them_together(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        reads: list[Sequence[str]] = []
        stock = instance.storage.stock

        async def noted(names: Sequence[str]) -> list[Coupon]:
            reads.append(names)
            return await stock(names)

        monkeypatch.setattr(instance.storage, "stock", noted)
        by_coupon = StrategyByCoupon(dict.fromkeys(StrategyName, instance.strategy), instance.storage)
        await instance.storage.create_coupon("a", 5, StrategyName.REDLOCK)
        await instance.storage.create_coupon("b", 5, StrategyName.REDLOCK)
        outcomes = await asyncio.gather(*(by_coupon.claim("ab"[i % 2], f"user-{i}") for i in range(200)))
        assert sum(isinstance(outcome, Claimed) for outcome in outcomes) == 10
        assert sum(isinstance(outcome, SoldOut) for outcome in outcomes) == 190
        assert len(reads) <= 2


async def test_a_name_that_could_not_be_read_is_read_again(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = StrategyByCoupon(dict.fromkeys(StrategyName, instance.strategy), instance.storage)
        await instance.storage.create_coupon("a", 5, StrategyName.REDLOCK)

        async def down(names: Sequence[str]) -> list[Coupon]:
            raise UnavailableError("down", dependency="postgresql")

        with monkeypatch.context() as broken:
            broken.setattr(instance.storage, "stock", down)
            with pytest.raises(UnavailableError):
                await by_coupon.claim("a", "ada")
        assert isinstance(await by_coupon.claim("a", "ada"), Claimed)
