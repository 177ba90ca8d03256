"""A claim of a type is given the oldest coupon that admits its user, wherever in the list that coupon is."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.claiming.strategies import StrategyByCoupon, by_type
from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
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
from claimsvc.errors import UnavailableError
from claimsvc.ports import Coupons, PendingOutcome, Strategy

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Refusing:
    """A strategy and its coupons, oldest first, each with what it answers to everybody."""

    name = StrategyName.ROW_LOCK

    def __init__(self, outcomes: Sequence[ClaimOutcome]) -> None:
        self.outcomes = {f"coupon-{number}": outcome for number, outcome in enumerate(outcomes)}
        self.asked: list[str] = []
        self.looks: list[int] = []
        # Coupons that look open, and refuse when they are claimed.
        self.gone: set[str] = set()

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        self.asked.append(coupon_name)
        answer = PendingOutcome()
        answer.set_result(self.outcomes.get(coupon_name, UnknownCoupon()))
        return answer

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        self.looks.append(len(attempts))
        outcomes = [(each.coupon_name, self.outcomes[each.coupon_name]) for each in attempts]
        return [None if isinstance(each, Claimed) or name in self.gone else each for name, each in outcomes]

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
        by_coupon = StrategyByCoupon(strategies, cast("Coupons", coupons), coupons.look, timeout_seconds=10.0)
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
    # The first are claimed in turn, of the others only the one that may be open; they cost a read for a hundred.
    assert coupons.asked == [
        *list(coupons.outcomes)[: min(len(outcomes), 20)],
        *([f"coupon-{len(outcomes)}"] * is_one_open),
    ]
    assert len(coupons.looks) <= len(coupons.outcomes) // 100 + 1


@given(
    refusing=st.integers(0, 60),
    gone=st.sets(st.integers(0, 60)),
    outcome=st.sampled_from([None, claimed("coupon-open"), AlreadyClaimed(claimed("coupon-open").claim)]),
)
@example(refusing=40, gone=set(), outcome=claimed("coupon-open"))
@example(refusing=41, gone=set(), outcome=claimed("coupon-open"))
@example(refusing=39, gone=set(range(3, 20)), outcome=claimed("coupon-open"))
def test_what_was_not_tried_within_the_bound_never_becomes_a_refusal(
    refusing: int, gone: set[int], outcome: ClaimOutcome | None
) -> None:
    """Either the right answer, or that nothing is decided; and never more work than one claim may cost."""
    coupons = Refusing([NotEligible(())] * refusing)
    coupons.gone = {f"coupon-{number}" for number in gone}
    if outcome is not None:
        coupons.outcomes["coupon-open"] = outcome
    with patch.multiple(by_type, _CLAIMABLE_AT_ONCE=4, _CLAIMED_FIRST=3, _MOST_TRIED=40, _MOST_CLAIMED=10):
        found: ClaimOutcome | UnavailableError
        try:
            found = claim_of_type(coupons)
        except UnavailableError as error:
            found = error
    if isinstance(found, UnavailableError):
        assert "name a coupon" in found.detail
        claims = 3 + len({number for number in gone if 3 <= number < refusing}) + isinstance(outcome, Claimed)
        assert len(coupons.outcomes) > 40 - 4 or claims > 10
    else:
        assert found == (outcome or (NotEligible(()) if refusing else UnknownCoupon()))
    assert len(coupons.asked) <= 10
    assert sum(coupons.looks) <= 40
