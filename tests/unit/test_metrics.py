"""Which coupons have a label, and what the wrapper tells of a claim."""

import asyncio

import pytest

from claimsvc.domain import Outcome, SoldOut, StrategyName, UnknownCoupon
from claimsvc.errors import LockBusyError
from claimsvc.metrics import MeteredStrategy, Metrics
from claimsvc.metrics.busiest import OTHER, BusiestCoupons
from claimsvc.ports import ClaimAnswer


def test_coupons_beyond_the_capacity_share_one_label() -> None:
    coupons = BusiestCoupons(capacity=3)
    labels = {coupons.count(f"coupon-{i}") for i in range(10_000)}
    assert len(labels) == 4
    assert OTHER in labels


def test_a_coupon_that_becomes_busy_gets_the_label_of_one_that_is_not() -> None:
    coupons = BusiestCoupons(capacity=3)
    for name in ("a", "b", "c"):
        coupons.count(name)
    for _ in range(200):
        coupons.count("hot")
    assert coupons.label("hot") == "hot"
    assert len(coupons.names()) == 3


def test_labels_are_handed_on_a_bounded_number_of_times() -> None:
    coupons = BusiestCoupons(capacity=2, replacements=5)
    given = {coupons.count(f"coupon-{i // 1000}") for i in range(100_000)}
    assert len(given) <= 2 + 5 + 1


class Answering:
    """A strategy with one answer for everybody."""

    name = StrategyName.REDLOCK

    def __init__(self, answer: Outcome | Exception) -> None:
        self._answer = answer

    def claim(self, coupon_name: str, user_id: str) -> ClaimAnswer:
        answer = ClaimAnswer()
        if isinstance(self._answer, Exception):
            answer.set_exception(self._answer)
        else:
            answer.set_result(self._answer)
        return answer

    async def drain(self) -> None:
        pass


async def test_every_outcome_is_counted_under_its_name() -> None:
    metrics = Metrics()
    await MeteredStrategy(Answering(SoldOut()), metrics).claim("spring", "ada")
    with pytest.raises(LockBusyError):
        await MeteredStrategy(Answering(LockBusyError("busy")), metrics).claim("spring", "ada")
    with pytest.raises(ZeroDivisionError):
        await MeteredStrategy(Answering(ZeroDivisionError()), metrics).claim("spring", "ada")
    await asyncio.sleep(0)
    exposition = metrics.render()[0].decode()
    for outcome in ("sold-out", "lock-busy", "internal-error"):
        line = f'claimsvc_claims_total{{coupon="spring",outcome="{outcome}",strategy="redlock"}} 1.0'
        assert line in exposition
        assert f'claimsvc_claim_duration_seconds_count{{outcome="{outcome}",strategy="redlock"}} 1.0' in exposition


async def test_made_up_names_make_no_series() -> None:
    metrics = Metrics()
    strategy = MeteredStrategy(Answering(UnknownCoupon()), metrics)
    for i in range(1000):
        await strategy.claim(f"made-up-{i}", "ada")
        metrics.attempted(f"made-up-{i}", "acquired")
    assert "made-up" not in metrics.render()[0].decode()
