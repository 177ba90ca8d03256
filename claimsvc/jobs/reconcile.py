"""Corrects counters that have drifted from PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from claimsvc.domain import Coupon, CouponFilter, StrategyName
from claimsvc.ports import Counters, Coupons

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that differs from the database: `counted` in Redis, `remaining_amount` in PostgreSQL."""

    coupon_name: str
    counted: int
    remaining_amount: int


async def reconcile(
    coupons: Coupons, counters: Counters, *, settle_seconds: float, observe: Callable[[str, int], None]
) -> AsyncGenerator[list[Drift], None]:
    """Delete every counter that has drifted from PostgreSQL; the next claim reads it again. Yields once per page.

    Claims in progress make a counter differ for a moment. So both sides are read twice, and a counter has drifted only
    if neither side changed in between.

    Args:
        storage: the database.
        counters: the counters in Redis.
        settle_seconds: time between the two reads, longer than a claim takes.
        observe: receives each drifted coupon's name and its difference: the counter less the database.

    Raises:
        UnavailableError: PostgreSQL or Redis does not answer.
    """
    after: str | None = None
    while page := await coupons.listed(CouponFilter(), after=after, limit=_PAGE):
        after = page[-1].coupon.name
        counted = [each.coupon for each in page if each.coupon.strategy is StrategyName.COUNTER]
        drifts = await _reconcile_page(coupons, counters, counted, settle_seconds)
        for drift in drifts:
            observe(drift.coupon_name, drift.counted - drift.remaining_amount)
        yield drifts


async def _reconcile_page(
    coupons: Coupons, counters: Counters, counted: list[Coupon], settle_seconds: float
) -> list[Drift]:
    suspects = [drift for coupon in counted if (drift := await _drift(counters, coupon))]
    if not suspects:
        return []
    await asyncio.sleep(settle_seconds)
    again = {
        coupon.name: await _drift(counters, coupon)
        for coupon in await coupons.stock([suspect.coupon_name for suspect in suspects])
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
