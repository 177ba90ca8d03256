"""A claim of a type is given the oldest coupon that admits its user, wherever in the list that coupon is."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.claiming.strategies import StrategyByCoupon
from claimsvc.domain import (
    Claim,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    ClaimState,
    Coupon,
    NotEligible,
    SoldOut,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.ports import Coupons, PendingOutcome, Strategy

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Refusing:
    """A strategy and its coupons, oldest first, each with what it answers to everybody."""

    name = StrategyName.ROW_LOCK

    def __init__(self, outcomes: Sequence[ClaimOutcome]) -> None:
        self.outcomes = {f"coupon-{number}": outcome for number, outcome in enumerate(outcomes)}
        self.asked: list[str] = []

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        self.asked.append(coupon_name)
        answer = PendingOutcome()
        answer.set_result(self.outcomes.get(coupon_name, UnknownCoupon()))
        return answer

    async def drain(self) -> None: ...

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        return [Coupon(name, 1, 1, StrategyName.ROW_LOCK, NOW) for name in names if name in self.outcomes]

    async def claimable_coupons(self, coupon_type: str | None, *, after: str | None, limit: int) -> list[str]:
        names = list(self.outcomes)
        return names[names.index(after) + 1 if after is not None else 0 :][:limit]


def claimed(name: str) -> Claimed:
    return Claimed(Claim("id", name, "ada", ClaimState.ACTIVE, NOW))


def claim_of_type(coupons: Refusing) -> ClaimOutcome:
    async def claim() -> ClaimOutcome:
        strategies = {StrategyName.ROW_LOCK: cast("Strategy", coupons)}
        by_coupon = StrategyByCoupon(strategies, cast("Coupons", coupons), timeout_seconds=10.0)
        return await by_coupon.claim_first("welcome", "ada")

    return asyncio.run(claim())


@given(
    st.lists(st.tuples(st.sampled_from([SoldOut(), NotEligible(())]), st.integers(1, 60)), max_size=6),
    st.booleans(),
)
@example([(NotEligible(()), 21)], True)
@example([(NotEligible(()), 100)], True)
@example([(NotEligible(()), 200)], False)
def test_whoever_one_of_them_admits_is_given_it_however_many_refuse_first(
    refusals: list[tuple[ClaimOutcome, int]], is_one_open: bool
) -> None:
    outcomes = [outcome for outcome, times in refusals for _ in range(times)]
    coupons = Refusing(outcomes)
    if is_one_open:
        name = f"coupon-{len(outcomes)}"
        coupons.outcomes[name] = claimed(name)
        coupons.outcomes["coupon-younger"] = claimed("coupon-younger")
    outcome = claim_of_type(coupons)
    assert outcome == (claimed(f"coupon-{len(outcomes)}") if is_one_open else [UnknownCoupon(), *outcomes][-1])
    assert coupons.asked == list(coupons.outcomes)[: len(outcomes) + is_one_open]
