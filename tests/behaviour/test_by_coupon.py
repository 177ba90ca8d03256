"""Each claim goes to the strategy of its coupon, and names are read together."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from claimsvc.claiming.strategies import StrategyByCoupon
from claimsvc.claiming.strategies import by_type as by_type_module
from claimsvc.domain import (
    AlreadyClaimed,
    AttributeRule,
    Campaign,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    Coupon,
    EligibilityRules,
    NotEligible,
    NotStarted,
    Replayed,
    SoldOut,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import UnavailableError
from claimsvc.ports import PendingOutcome, Strategy
from tests.behaviour.test_life_of_a_claim import keyed
from tests.support.databases import administrate
from tests.support.storage import create_coupon
from tests.support.strategy_instances import Instance, open_instance
from tests.support.waiting import until


class Noting:
    """A strategy that notes what it was asked, and passes it on."""

    def __init__(self, strategy: Strategy) -> None:
        self.name = strategy.name
        self.asked: list[str] = []
        self._strategy = strategy

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        self.asked.append(coupon_name)
        return self._strategy.claim(coupon_name, user_id, options)

    async def drain(self) -> None:
        await self._strategy.drain()


def by_coupon_of(instance: Instance, *, timeout_seconds: float = 10.0) -> StrategyByCoupon:
    strategies = dict.fromkeys(StrategyName, instance.strategy)
    return StrategyByCoupon(
        strategies, instance.storage.coupons, instance.storage.admission.look, timeout_seconds=timeout_seconds
    )


async def test_each_coupon_is_claimed_by_its_own_strategy(database_url: str, redis_urls: tuple[str, ...]) -> None:
    async with open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance:
        noting = {name: Noting(instance.strategy) for name in StrategyName}
        by_coupon = StrategyByCoupon(
            noting, instance.storage.coupons, instance.storage.admission.look, timeout_seconds=10.0
        )
        for name in StrategyName:
            await create_coupon(instance.storage, f"by-{name}", 1, name)
        for _ in range(2):
            for name in StrategyName:
                await by_coupon.claim(f"by-{name}", "ada")
        assert [noting[name].asked for name in StrategyName] == [[f"by-{name}"] * 2 for name in StrategyName]
        assert await by_coupon.claim("nothing", "ada") == UnknownCoupon()


async def test_a_purged_coupon_that_is_made_anew_takes_its_new_strategy_in_every_instance(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with (
        open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as here,
        open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as there,
    ):
        noting = [{name: Noting(each.strategy) for name in StrategyName} for each in (here, there)]
        instances = [
            StrategyByCoupon(strategies, each.storage.coupons, each.storage.admission.look, timeout_seconds=10.0)
            for strategies, each in zip(noting, (here, there), strict=True)
        ]
        await create_coupon(here.storage, "spring", 1, StrategyName.REDLOCK)
        assert isinstance(await instances[0].claim("spring", "ada"), Claimed)
        assert isinstance(await instances[1].claim("spring", "ben"), SoldOut)
        administrate(database_url, "DELETE FROM user_claims")
        administrate(database_url, "DELETE FROM coupons")
        await create_coupon(here.storage, "spring", 1000, StrategyName.ROW_LOCK)
        users = (f"user-{number}" for number in itertools.count())
        for instance, strategies in zip(instances, noting, strict=True):
            # What else is remembered by name, such as that it was sold out, decides nothing.
            assert isinstance(await instance.claim("spring", next(users)), Claimed)

            async def takes_the_new_one(
                instance: StrategyByCoupon = instance, strategies: dict[StrategyName, Noting] = strategies
            ) -> bool:
                assert isinstance(await instance.claim("spring", next(users)), Claimed)
                return bool(strategies[StrategyName.ROW_LOCK].asked)

            await until(takes_the_new_one, "its claims take the new strategy", within_seconds=3.0)


async def test_a_herd_on_coupons_that_were_never_claimed_reads_them_together(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        reads: list[Sequence[str]] = []
        stock = instance.storage.coupons.stock

        async def noted(names: Sequence[str]) -> list[Coupon]:
            reads.append(names)
            return await stock(names)

        monkeypatch.setattr(instance.storage.coupons, "stock", noted)
        by_coupon = by_coupon_of(instance)
        await create_coupon(instance.storage, "a", 5, StrategyName.REDLOCK)
        await create_coupon(instance.storage, "b", 5, StrategyName.REDLOCK)
        outcomes = await asyncio.gather(*(by_coupon.claim("ab"[i % 2], f"user-{i}") for i in range(200)))
        assert sum(isinstance(outcome, Claimed) for outcome in outcomes) == 10
        assert sum(isinstance(outcome, SoldOut) for outcome in outcomes) == 190
        assert len(reads) <= 2


async def test_a_name_that_could_not_be_read_is_read_again(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance)
        await create_coupon(instance.storage, "a", 5, StrategyName.REDLOCK)

        async def down(names: Sequence[str]) -> list[Coupon]:
            raise UnavailableError("down", dependency="postgresql")

        with monkeypatch.context() as broken:
            broken.setattr(instance.storage.coupons, "stock", down)
            with pytest.raises(UnavailableError):
                await by_coupon.claim("a", "ada")
        assert isinstance(await by_coupon.claim("a", "ada"), Claimed)


async def test_a_reading_that_is_cancelled_leaves_nobody_waiting_and_the_next_claim_reads_anew(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance)
        await create_coupon(instance.storage, "a", 5, StrategyName.REDLOCK)

        async def cancelled(names: Sequence[str]) -> list[Coupon]:
            raise asyncio.CancelledError

        with monkeypatch.context() as broken:
            broken.setattr(instance.storage.coupons, "stock", cancelled)
            with pytest.raises(UnavailableError):
                await asyncio.wait_for(by_coupon.claim("a", "ada"), 20)
        assert isinstance(await asyncio.wait_for(by_coupon.claim("a", "ada"), 20), Claimed)


async def test_no_claim_of_a_busy_coupon_waits_until_its_strategy_is_read_again(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise claims go on after a while, however they wait.
    monkeypatch.setattr("claimsvc.claiming.strategies.by_coupon._READ_AGAIN_SECONDS", 3600.0)
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance)
        await create_coupon(instance.storage, "a", 5, StrategyName.REDLOCK)
        assert isinstance(await by_coupon.claim("a", "ada"), Claimed)
        stock, is_asked, may_answer = instance.storage.coupons.stock, asyncio.Event(), asyncio.Event()

        async def slow(names: Sequence[str]) -> list[Coupon]:
            is_asked.set()
            await may_answer.wait()
            return await stock(names)

        monkeypatch.setattr(instance.storage.coupons, "stock", slow)
        strategy, _ = by_coupon._known["a"]
        by_coupon._known["a"] = strategy, time.monotonic() + 0.4  # it was read some time ago
        pending = by_coupon.claim("a", "ben")
        assert "a" in by_coupon._unread
        assert isinstance(await asyncio.wait_for(pending, 20), Claimed)
        await is_asked.wait()
        may_answer.set()
        await by_coupon.drain()


async def test_a_name_that_is_asked_for_just_as_a_reading_ends_is_read_too(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance)
        for name in "ab":
            await create_coupon(instance.storage, name, 5, StrategyName.REDLOCK)
        late: list[asyncio.Future[ClaimOutcome]] = []
        stock = instance.storage.coupons.stock

        async def read_and_let_one_in(names: Sequence[str]) -> list[Coupon]:
            found = await stock(names)
            if not late:
                late.append(by_coupon.claim("b", "ada"))
            return found

        monkeypatch.setattr(instance.storage.coupons, "stock", read_and_let_one_in)
        assert isinstance(await by_coupon.claim("a", "ada"), Claimed)
        assert isinstance(await asyncio.wait_for(late[0], 20), Claimed)


async def test_a_name_that_is_long_in_reading_is_not_waited_for_past_the_limit(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance, timeout_seconds=1.0)
        await create_coupon(instance.storage, "a", 5, StrategyName.REDLOCK)
        may_answer = asyncio.Event()
        stock = instance.storage.coupons.stock

        async def slow(names: Sequence[str]) -> list[Coupon]:
            await may_answer.wait()
            return await stock(names)

        monkeypatch.setattr(instance.storage.coupons, "stock", slow)
        with pytest.raises(UnavailableError, match="may still succeed"):
            async with asyncio.timeout(10):
                await by_coupon.claim("a", "ada")
        may_answer.set()
        assert isinstance(await by_coupon.claim("a", "ada"), Claimed)


async def test_claims_of_a_type_are_given_every_unit_of_its_coupons(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        for name in "abc":
            await create_coupon(instance.storage, name, 10, StrategyName.REDLOCK, Campaign(type="welcome"))
        await create_coupon(instance.storage, "d", 10, StrategyName.REDLOCK)
        looks: list[str | None] = []
        claimable_coupons = instance.storage.coupons.claimable_coupons

        async def noted(coupon_type: str | None, *, after: str | None, limit: int) -> list[str]:
            looks.append(coupon_type)
            return await claimable_coupons(coupon_type, after=after, limit=limit)

        monkeypatch.setattr(instance.storage.coupons, "claimable_coupons", noted)
        by_coupon = by_coupon_of(instance)
        outcomes = await asyncio.gather(*(by_coupon.claim_first("welcome", f"u{n}") for n in range(100)))
        given = Counter(each.claim.coupon_name for each in outcomes if isinstance(each, Claimed))
        assert given == {"a": 10, "b": 10, "c": 10}
        assert sum(isinstance(each, SoldOut) for each in outcomes) == 70
        assert len(looks) < 20
        outcomes = await asyncio.gather(*(by_coupon.claim_first(None, f"v{n}") for n in range(20)))
        assert Counter(map(type, outcomes)) == {Claimed: 10, SoldOut: 10}
        assert await by_coupon.claim_first("nothing", "ada") == UnknownCoupon()


async def test_a_type_whose_first_coupons_refuse_the_user_gives_the_first_that_admits_it(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_type_module, "_CLAIMABLE_AT_ONCE", 4)
    async with open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance)
        vip = Campaign(type="welcome", rules=EligibilityRules((AttributeRule("vip", one_of=(True,)),)))
        for number in range(21):
            await create_coupon(instance.storage, f"vip-{number}", 1, StrategyName.ROW_LOCK, vip)
        assert isinstance(await by_coupon.claim_first("welcome", "ada"), NotEligible)
        for name in ("open", "younger"):
            await create_coupon(instance.storage, name, 1, StrategyName.ROW_LOCK, Campaign(type="welcome"))
        mine = await by_coupon.claim_first("welcome", "ada", keyed("k"))
        assert isinstance(mine, Claimed)
        assert mine.claim.coupon_name == "open"


async def test_a_type_of_hundreds_of_coupons_costs_a_read_for_many_and_gives_the_one_that_admits(
    database_url: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance:
        vip = Campaign(type="welcome", rules=EligibilityRules((AttributeRule("vip", one_of=(True,)),)))
        for number in range(250):
            await create_coupon(instance.storage, f"vip-{number}", 1, StrategyName.ROW_LOCK, vip)
        await create_coupon(instance.storage, "open", 2, StrategyName.ROW_LOCK, Campaign(type="welcome"))
        noting = Noting(instance.strategy)
        by_coupon = StrategyByCoupon(
            dict.fromkeys(StrategyName, noting),
            instance.storage.coupons,
            instance.storage.admission.look,
            timeout_seconds=10.0,
        )
        mine = await by_coupon.claim_first("welcome", "ada", keyed("k"))
        assert isinstance(mine, Claimed)
        assert (mine.claim.coupon_name, len(noting.asked)) == ("open", 21)
        again = await by_coupon.claim_first("welcome", "ada", keyed("k"))
        assert isinstance(again, Replayed)
        assert again.answer == mine
        # The user has it: looking says so, without a claim.
        noting.asked.clear()
        assert await by_coupon.claim_first("welcome", "ada") == AlreadyClaimed(mine.claim)
        assert len(noting.asked) == 20
        assert isinstance(await by_coupon.claim_first("welcome", "bob"), Claimed)
        assert isinstance(await by_coupon.claim_first("welcome", "eve"), NotEligible | SoldOut)
        monkeypatch.setattr(by_type_module, "_MOST_TRIED", 150)
        with pytest.raises(UnavailableError, match="name a coupon"):
            await by_coupon.claim_first("welcome", "eve")


async def test_a_type_of_which_none_is_open_answers_what_happens_next(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    """The newest is sold out, and older ones start later."""
    async with open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance:
        soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 2))
        for name, campaign in {
            "later": Campaign(type="starts", starts_at=later),
            "soon": Campaign(type="starts", starts_at=soon),
            "too-late": Campaign(type="starts", starts_at=later, ends_at=later + timedelta(hours=1), paused=True),
        }.items():
            await create_coupon(instance.storage, name, 1, StrategyName.ROW_LOCK, campaign)
        by_coupon = by_coupon_of(instance)
        for coupon_type in ("starts", "sold-out"):
            name = f"{coupon_type}-sold-out"
            await create_coupon(instance.storage, name, 1, StrategyName.ROW_LOCK, Campaign(type=coupon_type))
            assert isinstance(await by_coupon.claim(name, "first"), Claimed)
        outcome = await by_coupon.claim_first("starts", "ada", keyed("k"))
        assert isinstance(outcome, NotStarted)
        assert outcome.starts_at == soon
        assert isinstance(await by_coupon.claim_first("sold-out", "ada"), SoldOut)


async def test_a_keyed_claim_of_a_type_keeps_its_last_answer_alone(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with open_instance(StrategyName.REDLOCK, database_url, redis_urls) as instance:
        by_coupon = by_coupon_of(instance)
        for name in "ab":
            await create_coupon(instance.storage, name, 1, StrategyName.REDLOCK, Campaign(type="welcome"))
        await by_coupon.claim_first("welcome", "first")
        mine = await by_coupon.claim_first("welcome", "ada", keyed("k-1"))
        assert isinstance(mine, Claimed)
        assert mine.claim.coupon_name == "b"
        again = await by_coupon.claim_first("welcome", "ada", keyed("k-1"))
        assert isinstance(again, Replayed)
        assert again.answer == mine
        assert isinstance(await by_coupon.claim_first("welcome", "eve", keyed("k-2")), SoldOut)
        await create_coupon(instance.storage, "c", 1, StrategyName.REDLOCK, Campaign(type="welcome"))
        again = await by_coupon.claim_first("welcome", "eve", keyed("k-2"))
        assert isinstance(again, Replayed)
        assert again.answer == SoldOut()
        assert isinstance(await by_coupon.claim_first("none", "eve", keyed("k-3")), UnknownCoupon)
