"""Who may claim, under every strategy: by rules, by lists, and by what else they have claimed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from claimsvc.domain import (
    AlreadyClaimed,
    AttributeRule,
    AuditEntry,
    Campaign,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    Eligibility,
    EligibilityRules,
    HoldContinued,
    IdempotencyKey,
    ListKind,
    ListReplaced,
    NotEligible,
    Reason,
    ReasonCode,
    Replayed,
    SoldOut,
    Source,
    StrategyName,
    UnknownCoupon,
)
from tests.support.storage import create_coupon
from tests.support.strategy_instances import STRATEGIES, Instance, open_instance

ENTRY = AuditEntry("test", "coupon.change", "coupon", "spring")
ADULT = EligibilityRules((AttributeRule("age", at_least=19), AttributeRule("country", one_of=("KR", "JP"))))


@pytest.fixture(params=STRATEGIES)
async def instances(
    request: pytest.FixtureRequest, database_url: str, redis_urls: tuple[str, ...]
) -> AsyncIterator[tuple[Instance, Instance]]:
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(open_instance(request.param, database_url, redis_urls)) for _ in range(2)
        ]
        yield here, there


@pytest.fixture
def here(instances: tuple[Instance, Instance]) -> Instance:
    return instances[0]


async def offer(instance: Instance, amount: int = 1, name: str = "spring", **rules: object) -> None:
    await create_coupon(instance.storage, name, amount, StrategyName.REDLOCK, Campaign(**rules))  # type: ignore[arg-type]


def said(**attributes: str | float) -> ClaimOptions:
    return ClaimOptions(attributes=attributes)


def codes(outcome: ClaimOutcome) -> list[str]:
    assert isinstance(outcome, NotEligible)
    return [reason.code for reason in outcome.reasons]


async def left(instance: Instance, name: str = "spring") -> int:
    detail = await instance.storage.coupons.coupon(name, claimants=100_000)
    assert detail is not None
    assert detail.coupon.amount - detail.coupon.remaining_amount == len(detail.claimed_by)
    return detail.coupon.remaining_amount


async def test_only_whom_the_rules_admit_get_a_unit_and_the_others_take_none(here: Instance) -> None:
    await offer(here, amount=20, rules=ADULT)
    wants = [None, said(age=18, country="KR"), said(age=19, country="US"), said(age=19, country="KR")]
    outcomes = await asyncio.gather(
        *(
            here.strategy.claim("spring", f"{place}-{n}", options)
            for n in range(20)
            for place, options in enumerate(wants)
        )
    )
    assert Counter(map(type, outcomes)) == {Claimed: 20, NotEligible: 60}
    assert outcomes[0] == NotEligible(
        (
            Reason(ReasonCode.ATTRIBUTE_MISSING, "#/attributes/0"),
            Reason(ReasonCode.ATTRIBUTE_MISSING, "#/attributes/1"),
        )
    )
    assert outcomes[1] == NotEligible((Reason(ReasonCode.ATTRIBUTE_REFUSED, "#/attributes/0"),))
    assert await left(here) == 0
    # Sold out is not told to whom it was never for.
    assert isinstance(await here.strategy.claim("spring", "late"), NotEligible)
    assert isinstance(await here.strategy.claim("spring", "late", said(age=19, country="KR")), SoldOut)


async def test_a_rule_about_the_token_is_not_met_by_what_the_request_says(here: Instance) -> None:
    await offer(here, rules=EligibilityRules((AttributeRule("tier", Source.TOKEN, one_of=("gold",)),)))
    assert codes(await here.strategy.claim("spring", "ada", said(tier="gold"))) == [ReasonCode.ATTRIBUTE_MISSING]
    assert isinstance(await here.strategy.claim("spring", "ada", ClaimOptions(token={"tier": "gold"})), Claimed)


async def test_what_is_said_of_a_user_changes_nothing_where_nobody_asks(here: Instance) -> None:
    await offer(here, amount=5)
    outcomes = await asyncio.gather(*(here.strategy.claim("spring", f"user-{n}", said(age=n)) for n in range(8)))
    assert Counter(map(type, outcomes)) == {Claimed: 5, SoldOut: 3}
    [again] = {type(await here.strategy.claim("spring", "user-0", said(age=0)))}
    assert again is AlreadyClaimed


async def test_a_coupon_may_ask_for_a_claim_of_another_or_exclude_it(here: Instance) -> None:
    await offer(here, amount=10, name="first")
    await offer(here, amount=10, name="second", rules=EligibilityRules(holds=("first",)))
    await offer(here, amount=10, name="other", rules=EligibilityRules(holds_not=("first",)))
    assert codes(await here.strategy.claim("second", "ada")) == [ReasonCode.MUST_HOLD]
    first = await here.strategy.claim("first", "ada", ClaimOptions(hold_seconds=60))
    assert isinstance(first, Claimed)
    assert isinstance(await here.strategy.claim("second", "ada"), Claimed)
    assert codes(await here.strategy.claim("other", "ada")) == [ReasonCode.MUST_NOT_HOLD]
    assert isinstance(await here.strategy.claim("other", "bob"), Claimed)
    await here.storage.claims.cancel(first.claim.id, ENTRY)
    assert isinstance(await here.strategy.claim("other", "ada"), Claimed)
    assert codes(await here.strategy.claim("second", "eve")) == [ReasonCode.MUST_HOLD]


async def test_rules_are_set_and_taken_away_while_claims_take_the_quick_way(
    instances: tuple[Instance, Instance],
) -> None:
    here, there = instances
    await offer(here, amount=1000)

    async def change() -> None:
        for rules in (ADULT, None) * 5:
            await there.storage.campaigns.change("spring", {"rules": rules}, ENTRY)

    outcomes, _ = await asyncio.gather(
        asyncio.gather(*(each.strategy.claim("spring", f"{n}") for n in range(300) for each in (here, there))),
        change(),
    )
    assert {type(each) for each in outcomes} <= {Claimed, AlreadyClaimed, NotEligible}
    assert await left(here) == 1000 - sum(isinstance(each, Claimed) for each in outcomes)
    assert isinstance(await here.strategy.claim("spring", "last"), Claimed)
    changed = await there.storage.campaigns.change("spring", {"rules": ADULT}, ENTRY)
    assert getattr(changed, "campaign", None) == Campaign(rules=ADULT)
    for each in instances:
        assert isinstance(await each.strategy.claim("spring", "one more"), NotEligible)


async def pieces(*users: str) -> AsyncIterator[Sequence[str]]:
    for start in range(0, len(users), 500):
        yield users[start : start + 500]


async def load(instance: Instance, kind: ListKind, *users: str, name: str = "spring") -> None:
    assert await instance.storage.audience.replace_list(name, kind, pieces(*users), ENTRY) == ListReplaced(
        name, kind, len(users)
    )


async def test_only_those_on_the_one_list_and_not_on_the_other_get_a_unit(
    instances: tuple[Instance, Instance],
) -> None:
    here, there = instances
    await offer(here, amount=50)
    assert isinstance(await here.strategy.claim("spring", "early"), Claimed)
    await load(there, ListKind.ALLOW, *(f"user-{n}" for n in range(40)))
    await load(there, ListKind.DENY, *(f"user-{n}" for n in range(30, 60)))
    outcomes = await asyncio.gather(
        *(each.strategy.claim("spring", f"user-{n}") for n in range(70) for each in instances)
    )
    assert Counter(map(type, outcomes)) == {Claimed: 30, AlreadyClaimed: 30, NotEligible: 80}
    assert codes(outcomes[2 * 35]) == [ReasonCode.DENIED]
    assert codes(outcomes[2 * 50]) == [ReasonCode.NOT_LISTED, ReasonCode.DENIED]
    assert codes(outcomes[2 * 65]) == [ReasonCode.NOT_LISTED]
    await there.storage.audience.remove_list("spring", ListKind.ALLOW, ENTRY)
    await there.storage.audience.remove_list("spring", ListKind.DENY, ENTRY)
    outcomes = await asyncio.gather(*(here.strategy.claim("spring", f"user-{n}") for n in range(70)))
    assert Counter(map(type, outcomes)) == {AlreadyClaimed: 30, Claimed: 19, SoldOut: 21}
    assert await left(here) == 0


@pytest.mark.slow
async def test_while_lists_are_replaced_each_claim_sees_one_of_them_whole(
    instances: tuple[Instance, Instance],
) -> None:
    """Who is on every allow list is admitted at any moment, and who is on every deny list never is."""
    here, there = instances
    await offer(here, amount=1_000_000)
    always, never = [f"always-{n}" for n in range(1000)], [f"never-{n}" for n in range(1000)]
    await load(here, ListKind.ALLOW, *always, *never)
    await load(here, ListKind.DENY, *never)
    done = asyncio.Event()

    async def keep_replacing() -> None:
        for number in range(6):
            fill = [f"{number}-{n}" for n in range(number * 1000)]
            await load(there, ListKind.ALLOW, *fill, *always, *never)
            await load(here, ListKind.DENY, *never, *fill)
        done.set()

    async def keep_claiming() -> int:
        rounds = 0
        while not done.is_set():
            users = [each for n in range(20) for each in (f"always-{(20 * rounds + n) % 1000}", f"never-{n}")]
            outcomes = await asyncio.gather(
                *(instances[n % 2].strategy.claim("spring", user) for n, user in enumerate(users))
            )
            assert {type(each) for each in outcomes[::2]} <= {Claimed, AlreadyClaimed}
            assert {reason for each in outcomes[1::2] for reason in codes(each)} == {ReasonCode.DENIED}
            rounds += 1
        return rounds

    _, rounds = await asyncio.gather(keep_replacing(), keep_claiming())
    assert rounds > 5


async def test_asking_tells_everything_in_the_way_and_claims_nothing(here: Instance) -> None:
    await offer(here, rules=EligibilityRules(ADULT.attributes[:1]))
    fit = said(age=30)

    async def ask(user: str, options: ClaimOptions) -> list[str]:
        found = await here.storage.audience.eligibility("spring", user, options)
        assert isinstance(found, Eligibility)
        return [reason.code for reason in found.reasons]

    assert await here.storage.audience.eligibility("winter", "ada", fit) == UnknownCoupon()
    assert await ask("ada", fit) == []
    assert await left(here) == 1
    await here.storage.campaigns.change("spring", {"paused": True}, ENTRY)
    assert await ask("ada", ClaimOptions()) == ["paused", ReasonCode.ATTRIBUTE_MISSING]
    await here.storage.campaigns.change("spring", {"paused": False}, ENTRY)
    held = await here.strategy.claim("spring", "ada", ClaimOptions(hold_seconds=60, attributes=fit.attributes))
    assert isinstance(held, Claimed)
    # What one holds can be gone on with, and confirmed.
    assert await ask("ada", ClaimOptions()) == []
    assert await ask("bob", ClaimOptions()) == [ReasonCode.ATTRIBUTE_MISSING, "sold-out"]
    assert isinstance(await here.strategy.claim("spring", "ada"), HoldContinued)
    assert await ask("ada", fit) == ["already-claimed", "sold-out"]


async def test_what_was_told_under_a_key_is_told_again_whatever_has_changed(here: Instance) -> None:
    await offer(here, amount=5, rules=ADULT)
    once = IdempotencyKey("anybody", "key", b"asked", "request-1")
    again = IdempotencyKey("anybody", "key", b"asked", "request-2")
    told = await here.strategy.claim("spring", "ada", ClaimOptions(idempotency_key=once))
    assert isinstance(told, NotEligible)
    asked = await here.storage.audience.eligibility("spring", "ada", ClaimOptions(), replace(once, key="another"))
    await here.storage.campaigns.change("spring", {"rules": None}, ENTRY)
    assert await here.strategy.claim("spring", "ada", ClaimOptions(idempotency_key=again)) == Replayed(
        told, "request-1"
    )
    replayed = await here.storage.audience.eligibility("spring", "ada", ClaimOptions(), replace(again, key="another"))
    assert replayed == Replayed(asked, "request-1")
    assert isinstance(asked, Eligibility)
    assert len(asked.reasons) == 2
