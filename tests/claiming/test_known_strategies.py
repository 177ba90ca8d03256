"""What is known of a coupon's strategy is a second old at most; while the database is away, claims go on with it."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.claiming.strategies import StrategyByCoupon, by_coupon
from claimsvc.domain import Attempt, ClaimOptions, ClaimOutcome, Coupon, SoldOut, StrategyName
from claimsvc.errors import UnavailableError
from claimsvc.ports import Coupons, PendingOutcome, Strategy

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Asked:
    """A strategy that refuses everything, and notes its own name."""

    def __init__(self, name: StrategyName, asked: list[StrategyName]) -> None:
        self.name = name
        self._asked = asked

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        self._asked.append(self.name)
        answer = PendingOutcome()
        answer.set_result(SoldOut())
        return answer

    async def drain(self) -> None: ...


class Database:
    """`ports.Coupons` with the coupon `spring`, or without; it answers, fails or hangs."""

    def __init__(self) -> None:
        self.strategy: StrategyName | None = StrategyName.REDLOCK
        self.failure: Exception | None = None
        self.hangs = False
        self.reads = 0
        self.names: list[str] = []

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        self.reads += 1
        self.names += names
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return [] if self.strategy is None else [Coupon(name, 1, 1, self.strategy, NOW) for name in names]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


async def no_look(attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
    raise AssertionError(f"all claims name their coupon: {attempts}")


def opened() -> tuple[StrategyByCoupon, Database, list[StrategyName]]:
    asked: list[StrategyName] = []
    database = Database()
    strategies = {name: cast("Strategy", Asked(name, asked)) for name in StrategyName}
    return StrategyByCoupon(strategies, cast("Coupons", database), no_look, timeout_seconds=10.0), database, asked


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.4, 0.9, 1.1, 3600.0]), st.none() | st.sampled_from(StrategyName)), max_size=20
    )
)
def test_a_claim_takes_a_strategy_that_the_coupon_had_within_the_last_second(
    changes: list[tuple[float, StrategyName | None]],
) -> None:
    """The coupon is purged (None) or made anew with another strategy, time passes, and a claim comes."""
    clock = Clock()

    async def live() -> None:
        claims, database, asked = opened()
        had = [(clock.now, database.strategy)]
        for seconds, strategy in changes:
            clock.now += seconds
            database.strategy = strategy
            had.append((clock.now, strategy))
            await claims.claim("spring", "ada")
            # What it had a second ago, and all that it was changed to since.
            older = [each for at, each in had if at < clock.now - 1.0][-1:]
            recent = [each for at, each in had if at >= clock.now - 1.0]
            assert asked[-1] in {each or StrategyName.ROW_LOCK for each in older + recent}
            if seconds > 1.0:
                assert asked[-1] == (strategy or StrategyName.ROW_LOCK)

    with patch.object(by_coupon, "time", clock):
        asyncio.run(live())


async def test_it_is_read_once_a_second_however_many_claims_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_coupon, "_KNOWN_SECONDS", 60.0)
    claims, database, _ = opened()
    for _ in range(100):
        await claims.claim("spring", "ada")
    assert database.reads == 1


async def test_while_the_database_fails_claims_go_on_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_coupon, "_KNOWN_SECONDS", 0.0)
    claims, database, asked = opened()
    await claims.claim("spring", "ada")
    database.failure = UnavailableError("down", dependency="postgresql")
    database.strategy = StrategyName.ROW_LOCK
    await claims.claim("spring", "ada")
    assert asked == [StrategyName.REDLOCK] * 2
    database.failure = None
    await claims.claim("spring", "ada")
    assert asked[-1] is StrategyName.ROW_LOCK


async def test_while_the_database_hangs_claims_go_on_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    claims, database, asked = opened()
    await claims.claim("spring", "ada")
    database.hangs = True
    monkeypatch.setattr(by_coupon, "_READ_AGAIN_SECONDS", 0.05)
    with patch.object(by_coupon, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 1.5)):
        async with asyncio.timeout(5):
            await asyncio.gather(*(claims.claim("spring", f"user-{number}") for number in range(100)))
            for number in range(100):
                await claims.claim("spring", f"later-{number}")
    assert asked == [StrategyName.REDLOCK] * 201
    assert database.reads == 2


async def test_what_was_claimed_of_late_is_read_along_and_the_next_claims_do_not_wait() -> None:
    clock = Clock()
    with patch.object(by_coupon, "time", clock):
        claims, database, _ = opened()
        names = [f"coupon-{number}" for number in range(100)]
        clock.now = 10.0
        await asyncio.gather(*(claims.claim(name, "ada") for name in names))
        for _ in range(4):
            clock.now += 0.6
            reads = database.reads
            assert claims.claim(names[0], "ada").done()
            await claims.drain()
            assert database.reads == reads + 1
        assert all(claims.claim(name, "ada").done() for name in names)
        # What is not claimed any more is not read any more.
        clock.now += 3600.0
        for _ in range(4):
            await claims.claim(names[0], "ada")
            clock.now += 10.0
        await claims.claim(names[0], "ada")
        database.names.clear()
        clock.now += 0.6
        await claims.claim(names[0], "ada")
        await claims.drain()
        assert database.names == [names[0]]


async def test_what_was_only_read_along_is_known_no_longer_if_the_database_fails() -> None:
    clock = Clock()
    with patch.object(by_coupon, "time", clock):
        claims, database, _ = opened()
        clock.now = 10.0
        for name in ("spring", "summer"):
            await claims.claim(name, "ada")
        clock.now += 0.6
        database.failure = UnavailableError("down", dependency="postgresql")
        assert claims.claim("spring", "ada").done()
        await claims.drain()
        assert set(database.names) == {"spring", "summer"}
        database.failure, database.strategy = None, StrategyName.ROW_LOCK
        clock.now += 0.5
        assert claims.claim("spring", "ada").done()
        assert not claims.claim("summer", "ada").done()
        await claims.drain()
