"""Locks that are busy while many coupons are claimed from: they are tried again in the next round."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import pytest

from claimsvc.claiming.batching import BatchLimits, WaitingRoom
from claimsvc.claiming.strategies import RedlockStrategy
from claimsvc.domain import Attempt, Claim, Claimed, ClaimState
from claimsvc.ports import Decision, FencedAdmission, Lease, Lock
from tests.support.observed import Observed

_NAMES = [f"coupon-{number}" for number in range(10)]
_FIRST = _NAMES[0]


class _Lease:
    """`ports.Lease`."""

    def __init__(self, coupon_names: Sequence[str]) -> None:
        self.coupon_names = coupon_names
        self.handed_over: Sequence[str] = ()

    def seconds_left(self) -> float:
        return 20.0

    async def is_wanted(self) -> bool:
        return False


class _Lock:
    """`ports.Lock`: the first coupon's is held elsewhere in the first rounds.

    Args:
        busy_rounds: how many.
    """

    def __init__(self, busy_rounds: int) -> None:
        self.rounds: list[Sequence[str]] = []
        self.waited_for: list[str] = []
        self.during_a_round: Callable[[], None] = lambda: None
        self._busy_rounds = busy_rounds

    @asynccontextmanager
    async def hold_free(self, coupon_names: Sequence[str]) -> AsyncIterator[Lease]:
        self.rounds.append(coupon_names)
        is_busy = len(self.rounds) <= self._busy_rounds
        self.during_a_round()
        yield cast("Lease", _Lease([name for name in coupon_names if not is_busy or name != _FIRST]))

    @asynccontextmanager
    async def hold(self, coupon_name: str, *, was_busy: bool = False) -> AsyncIterator[Lease]:
        self.waited_for.append(coupon_name)
        yield cast("Lease", _Lease([coupon_name]))


class _Admission:
    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        now = datetime.now(UTC)
        return [
            Claimed(Claim(each.claim_id, each.coupon_name, each.user_id, ClaimState.ACTIVE, now)) for each in attempts
        ]


def _strategy(lock: _Lock) -> RedlockStrategy:
    limits = BatchLimits(batch_size=64, lock_timeout_seconds=6, queue_timeout_seconds=10, claim_timeout_seconds=20)
    observed = Observed()
    return RedlockStrategy(
        cast("Lock", lock),
        cast("FencedAdmission", _Admission()),
        slice_seconds=0.02,
        limits=limits,
        room=WaitingRoom(1000, observed),
        observer=observed,
    )


async def _claim_in_busy_rounds(lock: _Lock, *, of_the_first: int = 1) -> None:
    """Claim once from every coupon, and from others in each round."""
    strategy = _strategy(lock)
    claims = [strategy.claim(_FIRST, f"user-{number}") for number in range(of_the_first)]
    claims += [strategy.claim(name, "ada") for name in _NAMES[1:]]
    number = 0

    def more() -> None:
        nonlocal number
        number += 1
        if number < 10:
            claims.extend(strategy.claim(f"{name}-{number}", "ada") for name in _NAMES[1:])

    lock.during_a_round = more
    async with asyncio.timeout(20):
        for claim in claims:
            assert isinstance(await claim, Claimed)
        await strategy.drain()


@pytest.mark.parametrize("busy_rounds", [1, 2])
async def test_a_busy_lock_is_tried_again_in_the_next_rounds(busy_rounds: int) -> None:
    lock = _Lock(busy_rounds)
    await _claim_in_busy_rounds(lock)
    assert not lock.waited_for
    assert sum(_FIRST in names for names in lock.rounds) == busy_rounds + 1


async def test_a_lock_that_stays_busy_is_waited_for() -> None:
    lock = _Lock(1000)
    await _claim_in_busy_rounds(lock)
    assert lock.waited_for == [_FIRST]
    assert sum(_FIRST in names for names in lock.rounds) == 3


async def test_the_busy_lock_of_a_busy_coupon_is_waited_for_at_once() -> None:
    lock = _Lock(1000)
    await _claim_in_busy_rounds(lock, of_the_first=8)
    assert lock.waited_for == [_FIRST]
    assert sum(_FIRST in names for names in lock.rounds) == 1


async def test_claims_that_have_waited_are_not_tried_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claimsvc.claiming.strategies.redlock._MISSING_SECONDS", 0.0)
    lock = _Lock(1000)
    await _claim_in_busy_rounds(lock)
    assert lock.waited_for == [_FIRST]
    assert sum(_FIRST in names for names in lock.rounds) == 1


async def test_a_busy_lock_is_waited_for_at_once_while_few_coupons_are_claimed_from() -> None:
    lock = _Lock(1000)
    strategy = _strategy(lock)
    assert isinstance(await asyncio.wait_for(strategy.claim(_FIRST, "ada"), 20), Claimed)
    assert (lock.waited_for, len(lock.rounds)) == ([_FIRST], 1)
