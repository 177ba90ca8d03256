"""One user uses up a bounded part of a coupon, whatever becomes of the claims: under every strategy, on every path."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from claimsvc.domain import (
    AuditEntry,
    Campaign,
    Cancelled,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    CodeState,
    CouponDetail,
    Eligibility,
    HoldContinued,
    NewCode,
    Reason,
    SoldOut,
    StrategyName,
    TooManyClaims,
)
from tests.support.databases import administrate
from tests.support.storage import create_coupon
from tests.support.strategy_instances import STRATEGIES, Instance, open_instance

ENTRY = AuditEntry("test", "claim.cancel", "claim", "it", reason="because")
HELD = ClaimOptions(hold_seconds=60)
# What one user may make of a coupon of which it may have one unit.
_MOST = 11


@pytest.fixture(params=STRATEGIES)
async def instances(
    request: pytest.FixtureRequest, database_url: str, redis_urls: tuple[str, ...]
) -> AsyncIterator[tuple[Instance, Instance]]:
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(open_instance(request.param, database_url, redis_urls)) for _ in range(2)
        ]
        yield here, there


async def offer(instance: Instance, amount: int = 5, **terms: Any) -> None:
    await create_coupon(instance.storage, "spring", amount, StrategyName.REDLOCK, Campaign(**terms))


async def claim_and_cancel(instance: Instance, user: str, options: ClaimOptions | None = None) -> ClaimOutcome:
    outcome = await instance.strategy.claim("spring", user, options)
    if isinstance(outcome, Claimed):
        assert isinstance(await instance.storage.claims.cancel(outcome.claim.id, ENTRY), Cancelled)
    return outcome


def made_by(instance: Instance, user: str) -> int:
    """How many claims of the user the database has, in whatever state."""
    [(count,)] = administrate(instance.database_url, f"SELECT count(*) FROM user_claims WHERE user_id = '{user}'")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize(
    ("terms", "most"),
    [
        ({}, _MOST),
        ({"per_user_limit": 2}, 12),
        ({"claims_per_user": 3}, 3),
        ({"claims_per_user": 1}, 1),
        ({"per_user_limit": 5, "claims_per_user": 2}, 2),
        ({"ends_at": datetime.now(UTC) + timedelta(hours=1)}, _MOST),
    ],
)
async def test_who_claims_and_cancels_again_and_again_is_refused_and_others_are_not(
    instances: tuple[Instance, Instance], terms: dict[str, Any], most: int
) -> None:
    await offer(instances[0], **terms)
    outcomes = [await claim_and_cancel(instances[turn % 2], "ada") for turn in range(most + 2)]
    assert [type(each) for each in outcomes] == [Claimed] * most + [TooManyClaims] * 2
    # In one batch, too, where others are admitted in one statement.
    together = await asyncio.gather(
        *(instance.strategy.claim("spring", user) for instance in instances for user in ("ada", f"ben-{id(instance)}"))
    )
    assert sorted(type(each).__name__ for each in together) == ["Claimed", "Claimed", "TooManyClaims", "TooManyClaims"]
    assert made_by(instances[0], "ada") == most


async def test_the_limit_can_be_raised_and_taken_back(instances: tuple[Instance, Instance]) -> None:
    here, there = instances
    await offer(here, claims_per_user=1)
    assert isinstance(await claim_and_cancel(here, "ada"), Claimed)
    assert isinstance(await here.strategy.claim("spring", "ada"), TooManyClaims)
    for claims_per_user, outcome in ((2, Claimed), (1, TooManyClaims), (None, Claimed)):
        changed = await there.storage.campaigns.change("spring", {"claims_per_user": claims_per_user}, ENTRY)
        assert isinstance(changed, CouponDetail)
        assert changed.campaign.most_claims == claims_per_user or (claims_per_user, changed.campaign.most_claims) == (
            None,
            _MOST,
        )
        assert isinstance(await claim_and_cancel(here, "ada"), outcome)


async def test_a_user_at_two_instances_at_once_makes_no_more(instances: tuple[Instance, Instance]) -> None:
    """Whoever holds the lock, or two at once: with `row_lock` the instances meet at the coupon's row alone."""
    await offer(instances[0], 50)

    async def storm(instance: Instance, user: str) -> None:
        for _ in range(15):
            await claim_and_cancel(instance, user)

    await asyncio.gather(*(storm(each, user) for each in instances for user in ("ada", "bob") for _ in range(2)))
    assert made_by(instances[0], "ada") == made_by(instances[0], "bob") == _MOST
    detail = await instances[0].storage.coupons.coupon("spring", claimants=10)
    assert detail is not None
    assert (detail.coupon.remaining_amount, detail.claimed_by) == (50, ())


async def test_holds_that_ran_out_count_and_eligibility_says_so(instances: tuple[Instance, Instance]) -> None:
    here, there = instances
    await offer(here, claims_per_user=2)
    for number in range(2):
        assert isinstance(await here.strategy.claim("spring", "ada", HELD), Claimed)
        if number == 0:
            assert isinstance(await here.strategy.claim("spring", "ada", HELD), HoldContinued)
        administrate(here.database_url, "UPDATE user_claims SET held_until = now() WHERE state = 'active'")
    # Nobody has returned the unit of the second yet.
    eligibility = await there.storage.audience.eligibility("spring", "ada", ClaimOptions())
    assert eligibility == Eligibility((Reason("too-many-claims"),))
    assert isinstance(await there.strategy.claim("spring", "ada"), TooManyClaims)
    assert isinstance(await there.strategy.claim("spring", "bob"), Claimed)


async def test_who_is_refused_at_a_coupon_without_stock_is_told_that_it_is_sold_out(
    instances: tuple[Instance, Instance],
) -> None:
    await offer(instances[0], 1, claims_per_user=1)
    await claim_and_cancel(instances[0], "ada")
    assert isinstance(await instances[0].strategy.claim("spring", "bob"), Claimed)
    for _ in range(2):
        assert isinstance(await instances[1].strategy.claim("spring", "ada"), SoldOut)


async def test_one_user_voids_no_more_codes_than_it_may_make_claims_and_none_that_it_has_not_seen(
    instances: tuple[Instance, Instance],
) -> None:
    here, there = instances
    await offer(here, claims_per_user=6)
    added = [NewCode(number + 1, f"C-{number:03}") for number in range(20)]

    async def rows() -> AsyncIterator[list[NewCode]]:
        yield added

    await here.storage.codes.add("spring", rows(), ENTRY, atomic=True)
    # Held and cancelled: nobody has seen the code, and the next has the same.
    for _ in range(3):
        assert isinstance(await claim_and_cancel(here, "ada", HELD), Claimed)
    assert isinstance(await here.strategy.claim("spring", "ada", HELD), Claimed)
    administrate(here.database_url, "UPDATE user_claims SET held_until = now() WHERE state = 'active'")
    counts = await here.storage.codes.count(None)
    assert (counts.uploaded, counts.claimed, counts.voided) == (20, 1, 0)
    # Claimed and cancelled: the code was shown.
    for expected in (Claimed, Claimed, TooManyClaims, TooManyClaims):
        assert isinstance(await claim_and_cancel(there, "ada"), expected)
    counts = await here.storage.codes.count(None)
    assert (counts.uploaded, counts.claimed, counts.voided) == (20, 0, 2)
    states = [code.state if (code := await here.storage.codes.code(each.code)) else None for each in added]
    assert states == [CodeState.VOIDED] * 2 + [CodeState.FREE] * 18
    honest = await here.strategy.claim("spring", "bob")
    assert isinstance(honest, Claimed)
    assert honest.claim.code == "C-002"
    detail = await here.storage.coupons.coupon("spring", claimants=10)
    assert detail is not None
    assert (detail.coupon.amount, detail.coupon.remaining_amount) == (18, 17)
