"""What becomes of claims under every strategy: held, confirmed, cancelled, expired; and coupons whose rules decide."""

import asyncio
import hashlib
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from claimsvc.domain import (
    MAX_AMOUNT,
    MAX_CLAIMS_PER_USER,
    AlreadyCancelled,
    AlreadyClaimed,
    AuditEntry,
    Campaign,
    Cancelled,
    Claimed,
    ClaimOptions,
    ClaimState,
    Confirmed,
    Coupon,
    CouponDetail,
    CouponExists,
    CouponFilter,
    Eligibility,
    Ended,
    HoldContinued,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    NotStarted,
    Paused,
    Reason,
    Replayed,
    SoldOut,
    StrategyName,
    UnknownClaim,
    UnknownCoupon,
)
from claimsvc.errors import ClaimsvcError
from tests.support.storage import create_coupon, entries_about
from tests.support.strategy_instances import STRATEGIES, Instance, open_instance
from tests.support.waiting import until

HELD = ClaimOptions(hold_seconds=60)
ENTRY = AuditEntry("test", "claim.cancel", "claim", "it", reason="because")
# The issue of the whole life asks for 60; this is enough to see each transition meet each other hundreds of times.
_STORM_SECONDS = float(os.environ.get("CLAIMSVC_TEST_STORM_SECONDS", "4"))


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


async def offer(instance: Instance, amount: int = 1, **rules: object) -> None:
    campaign = Campaign(**rules)  # type: ignore[arg-type]
    await create_coupon(instance.storage, "spring", amount, StrategyName.REDLOCK, campaign)


async def left(instance: Instance) -> int:
    """What remains; I1 to I3 hold in the same snapshot, of whoever may have one unit only."""
    detail = await instance.storage.coupons.coupon("spring", claimants=100_000)
    assert detail is not None
    assert detail.coupon.amount - detail.coupon.remaining_amount == len(detail.claimed_by)
    assert max(Counter(detail.claimed_by).values(), default=0) <= detail.campaign.per_user_limit
    return detail.coupon.remaining_amount


async def claimed(instance: Instance, user: str, options: ClaimOptions | None = None) -> str:
    outcome = await instance.strategy.claim("spring", user, options)
    assert isinstance(outcome, Claimed)
    return outcome.claim.id


async def run_out(instance: Instance, claim_id: str) -> None:
    """Let a hold's time be over."""
    url = instance.database_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE user_claims SET held_until = now() - interval '1 second' WHERE id = %s", [claim_id]
        )


async def test_a_unit_that_is_held_is_nobody_elses_until_it_is_confirmed(here: Instance) -> None:
    await offer(here)
    first = await here.strategy.claim("spring", "ada", HELD)
    assert isinstance(first, Claimed)
    assert first.claim.state is ClaimState.HELD
    assert first.claim.expires_at == first.claim.claimed_at + timedelta(seconds=60)
    assert isinstance(await here.strategy.claim("spring", "bob"), SoldOut)
    confirmed = await here.storage.claims.confirm(first.claim.id)
    assert isinstance(confirmed, Confirmed)
    assert (confirmed.claim.state, confirmed.claim.expires_at) == (ClaimState.ACTIVE, None)
    assert await here.storage.claims.confirm(first.claim.id) == confirmed
    assert await here.storage.claims.claim(first.claim.id) == confirmed.claim
    assert await left(here) == 0


async def test_a_holder_who_asks_again_goes_on_holding_and_one_who_claims_confirms(here: Instance) -> None:
    await offer(here)
    first = await here.strategy.claim("spring", "ada", HELD)
    assert isinstance(first, Claimed)
    again = await here.strategy.claim("spring", "ada", ClaimOptions(hold_seconds=3600))
    assert again == HoldContinued(first.claim)
    kept = await here.strategy.claim("spring", "ada")
    assert isinstance(kept, HoldContinued)
    assert (kept.claim.id, kept.claim.state) == (first.claim.id, ClaimState.ACTIVE)
    assert await here.strategy.claim("spring", "ada") == AlreadyClaimed(kept.claim)
    assert await left(here) == 0


async def test_a_hold_that_is_over_gives_its_unit_to_the_next_who_asks(here: Instance) -> None:
    await offer(here)
    mine = await claimed(here, "ada", HELD)
    assert isinstance(await here.strategy.claim("spring", "bob"), SoldOut)
    await run_out(here, mine)
    await claimed(here, "bob")
    expired = await here.storage.claims.confirm(mine)
    assert isinstance(expired, HoldExpired)
    assert expired.claim.state is ClaimState.EXPIRED
    assert isinstance(await here.storage.claims.cancel(mine, ENTRY), HoldExpired)
    assert isinstance(await here.strategy.claim("spring", "ada"), SoldOut)
    assert await left(here) == 0


async def test_confirming_too_late_gives_the_unit_back_at_once(here: Instance) -> None:
    await offer(here)
    mine = await claimed(here, "ada", HELD)
    await run_out(here, mine)
    assert isinstance(await here.storage.claims.confirm(mine), HoldExpired)
    assert await left(here) == 1


@pytest.mark.parametrize("options", [None, HELD], ids=["claimed", "held"])
async def test_a_claim_that_is_cancelled_many_times_gives_back_one_unit_once(
    here: Instance, options: ClaimOptions | None
) -> None:
    await offer(here, amount=3)
    mine = await claimed(here, "ada", options)
    assert await left(here) == 2
    cancelled = await asyncio.gather(*(here.storage.claims.cancel(mine, ENTRY) for _ in range(20)))
    assert {type(each) for each in cancelled} == {Cancelled}
    assert len({each.claim for each in cancelled if isinstance(each, Cancelled)}) == 1
    assert await left(here) == 3
    assert isinstance(await here.storage.claims.confirm(mine), AlreadyCancelled)
    assert len(await entries_about(here.storage, "claim", "it", limit=100)) == 1
    assert await claimed(here, "ada") != mine
    assert await left(here) == 2


async def test_a_claim_that_never_was_cannot_be_cancelled_or_confirmed(here: Instance) -> None:
    unknown = "00000000-0000-7000-8000-000000000000"
    assert await here.storage.claims.cancel(unknown, ENTRY) == UnknownClaim()
    assert await here.storage.claims.confirm(unknown) == UnknownClaim()


async def test_a_user_may_have_as_many_units_as_the_coupon_allows(here: Instance) -> None:
    await offer(here, amount=10, per_user_limit=3)
    outcomes = await asyncio.gather(*(here.strategy.claim("spring", "ada") for _ in range(8)))
    assert Counter(map(type, outcomes)) == {Claimed: 3, AlreadyClaimed: 5}
    await here.storage.campaigns.change("spring", {"per_user_limit": 1}, ENTRY)
    assert isinstance(await here.strategy.claim("spring", "ada"), AlreadyClaimed)
    units = [each.claim.id for each in outcomes if isinstance(each, Claimed)]
    for unit in units[:2]:
        assert isinstance(await here.storage.claims.cancel(unit, ENTRY), Cancelled)
    assert isinstance(await here.strategy.claim("spring", "ada"), AlreadyClaimed)
    await here.storage.claims.cancel(units[2], ENTRY)
    await claimed(here, "ada")
    assert await left(here) == 9


async def test_the_time_of_the_database_opens_and_closes_a_coupon(here: Instance) -> None:
    now = datetime.now(UTC)
    await offer(here, amount=5, starts_at=now + timedelta(hours=1))
    early = await here.strategy.claim("spring", "ada")
    assert isinstance(early, NotStarted)
    assert 3500 < early.seconds <= 3600
    await here.storage.campaigns.change("spring", {"starts_at": now - timedelta(hours=1)}, ENTRY)
    await claimed(here, "ada")
    await here.storage.campaigns.change("spring", {"ends_at": now - timedelta(minutes=1)}, ENTRY)
    assert isinstance(await here.strategy.claim("spring", "bob"), Ended)


async def test_a_coupon_closes_by_itself_at_its_end(here: Instance) -> None:
    await offer(here, amount=1_000_000, ends_at=datetime.now(UTC) + timedelta(seconds=0.5))
    users = (f"user-{number}" for number in itertools.count())
    await claimed(here, "ada")

    async def has_ended() -> bool:
        return isinstance(await here.strategy.claim("spring", next(users)), Ended)

    async with asyncio.timeout(10):
        while not await has_ended():
            pass
    before = await left(here)
    assert isinstance(await here.strategy.claim("spring", "last"), Ended)
    assert await left(here) == before


async def test_a_coupon_is_paused_and_goes_on(instances: tuple[Instance, Instance]) -> None:
    here, there = instances
    await offer(here, amount=5)
    await claimed(here, "ada")
    await there.storage.campaigns.change("spring", {"paused": True}, ENTRY)
    assert isinstance(await here.strategy.claim("spring", "bob"), Paused)
    await there.storage.campaigns.change("spring", {"paused": False}, ENTRY)
    await claimed(here, "bob")
    assert await left(here) == 3


async def test_an_archived_coupon_is_closed_for_good_and_keeps_its_claims(here: Instance) -> None:
    await offer(here, amount=5)
    mine = await claimed(here, "ada")
    archived = await here.storage.campaigns.change("spring", {}, ENTRY, archive=True)
    assert isinstance(archived, CouponDetail)
    assert archived.campaign.archived_at is not None
    assert isinstance(await here.strategy.claim("spring", "bob"), Ended)
    assert await here.storage.coupons.listed(CouponFilter(), after=None, limit=10) == []
    assert (await here.storage.claims.claim(mine)) is not None


async def test_an_amount_that_is_changed_under_load_neither_oversells_nor_undersells(
    instances: tuple[Instance, Instance],
) -> None:
    here, there = instances
    await offer(here, amount=50)

    async def change() -> None:
        for amount in (20, 60, 40, 80, 100):
            await here.storage.campaigns.change("spring", {"amount": amount}, ENTRY)

    outcomes, _ = await asyncio.gather(
        asyncio.gather(*(each.strategy.claim("spring", f"u{n}") for n in range(200) for each in (here, there))),
        change(),
    )
    made = sum(isinstance(each, Claimed) for each in outcomes)
    rest = await asyncio.gather(*(here.strategy.claim("spring", f"u{n}") for n in range(200)))
    made += sum(isinstance(each, Claimed) for each in rest)
    assert made == 100
    assert await left(here) == 0


async def test_an_amount_can_be_the_largest_there_is(here: Instance) -> None:
    await offer(here, amount=50)
    changed = await here.storage.campaigns.change("spring", {"amount": MAX_AMOUNT}, ENTRY)
    assert isinstance(changed, CouponDetail)
    assert (changed.coupon.amount, changed.coupon.remaining_amount) == (MAX_AMOUNT, MAX_AMOUNT)


async def test_nothing_is_lost_when_a_rule_meets_claims_that_take_the_quick_way(
    instances: tuple[Instance, Instance],
) -> None:
    """A coupon that becomes ruled while batches of it are under way, here and there."""
    here, there = instances
    await offer(here, amount=1000)

    async def change() -> None:
        for paused in (True, False) * 5:
            await there.storage.campaigns.change("spring", {"paused": paused}, ENTRY)

    outcomes, _ = await asyncio.gather(
        asyncio.gather(*(each.strategy.claim("spring", f"{n}") for n in range(300) for each in (here, there))),
        change(),
    )
    assert {type(each) for each in outcomes} <= {Claimed, AlreadyClaimed, Paused}
    made = sum(isinstance(each, Claimed) for each in outcomes)
    assert await left(here) == 1000 - made


def keyed(key: str, asked: str = "the same") -> ClaimOptions:
    return ClaimOptions(
        idempotency_key=IdempotencyKey(
            "anybody", key, hashlib.sha256(asked.encode()).digest(), f"request-{random.random()}"
        )
    )


async def test_the_same_claim_fifty_times_under_one_key_is_one_claim_with_one_answer(
    instances: tuple[Instance, Instance],
) -> None:
    await offer(instances[0], amount=100)
    outcomes = await asyncio.gather(
        *(instances[n % 2].strategy.claim("spring", "ada", keyed("k-1")) for n in range(50))
    )
    first = [each for each in outcomes if isinstance(each, Claimed)]
    replayed = [each for each in outcomes if isinstance(each, Replayed)]
    assert (len(first), len(replayed)) == (1, 49)
    assert {each.answer for each in replayed} == set(first)
    assert await left(instances[0]) == 99


async def test_a_repetition_is_told_that_it_is_one_though_it_has_the_request_id_of_the_first(here: Instance) -> None:
    await offer(here)
    options = keyed("k")
    first = await here.strategy.claim("spring", "ada", options)
    assert isinstance(first, Claimed)
    assert options.idempotency_key is not None
    assert await here.strategy.claim("spring", "ada", options) == Replayed(first, options.idempotency_key.request_id)


async def test_a_refusal_is_kept_under_its_key_too_and_another_request_under_it_is_refused(here: Instance) -> None:
    await offer(here)
    await claimed(here, "ada")
    assert isinstance(await here.strategy.claim("spring", "bob", keyed("k")), SoldOut)
    await here.storage.campaigns.change("spring", {"amount": 2}, ENTRY)
    replayed = await here.strategy.claim("spring", "bob", keyed("k"))
    assert isinstance(replayed, Replayed)
    assert isinstance(replayed.answer, SoldOut)
    assert await here.strategy.claim("spring", "bob", keyed("k", "something else")) == KeyReused()
    assert isinstance(await here.strategy.claim("spring", "bob", keyed("another")), Claimed)
    assert isinstance(await here.strategy.claim("winter", "bob", keyed("unknown")), UnknownCoupon)
    # Of a coupon that is not there nothing is kept: names can be made up without end.
    assert isinstance(await here.strategy.claim("winter", "bob", keyed("unknown")), UnknownCoupon)
    await create_coupon(here.storage, "winter", 1, StrategyName.REDLOCK, Campaign())
    assert isinstance(await here.strategy.claim("winter", "bob", keyed("unknown")), Claimed)


async def test_a_key_that_came_before_the_start_succeeds_after_it(instances: tuple[Instance, Instance]) -> None:
    here, there = instances
    await offer(here, starts_at=datetime.now(UTC) + timedelta(seconds=1))
    assert isinstance(await here.strategy.claim("spring", "ada", keyed("k")), NotStarted)
    assert isinstance(await here.storage.audience.eligibility("spring", "ada", ClaimOptions(), once("e")), Eligibility)

    async def has_started() -> bool:
        return not isinstance(await there.strategy.claim("spring", "ada", keyed("k")), NotStarted)

    await until(has_started, "the coupon has started")
    replayed = await here.strategy.claim("spring", "ada", keyed("k"))
    assert isinstance(replayed, Replayed)
    assert isinstance(replayed.answer, Claimed)
    checked = await here.storage.audience.eligibility("spring", "bob", ClaimOptions(), once("e"))
    assert checked == Eligibility((Reason("sold-out"),))


async def test_a_key_that_came_while_the_coupon_was_paused_succeeds_when_it_goes_on(here: Instance) -> None:
    await offer(here)
    await here.storage.campaigns.change("spring", {"paused": True}, ENTRY)
    for _ in range(2):
        assert isinstance(await here.strategy.claim("spring", "ada", keyed("k")), Paused)
    await here.storage.campaigns.change("spring", {"paused": False}, ENTRY)
    assert isinstance(await here.strategy.claim("spring", "ada", keyed("k")), Claimed)
    assert isinstance(await here.strategy.claim("spring", "ada", keyed("k")), Replayed)


async def test_one_key_for_two_coupons_at_once_does_one_of_the_two(instances: tuple[Instance, Instance]) -> None:
    for name in ("spring", "summer"):
        await create_coupon(instances[0].storage, name, 100, StrategyName.REDLOCK)
    for number in range(10):
        outcomes = await asyncio.gather(
            instances[0].strategy.claim("spring", "ada", keyed(f"k-{number}", "spring")),
            instances[1].strategy.claim("summer", "ada", keyed(f"k-{number}", "summer")),
        )
        assert sorted(type(each).__name__ for each in outcomes) in (
            ["Claimed", "KeyReused"],
            ["AlreadyClaimed", "KeyReused"],
        )


async def test_holders_confirm_expire_cancel_and_claim_again_at_random(instances: tuple[Instance, Instance]) -> None:
    """Fifty users on five units; I1 to I3 hold at every moment, and no unit is lost or made in the end."""
    await offer(instances[0], amount=5, claims_per_user=MAX_CLAIMS_PER_USER)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + _STORM_SECONDS
    seen: Counter[str] = Counter()

    async def live(user: str, chance: random.Random) -> None:
        while loop.time() < ends_at:
            instance = chance.choice(instances)
            options = chance.choice([None, HELD, ClaimOptions(hold_seconds=1), ClaimOptions(hold_seconds=1)])
            try:
                outcome = await instance.strategy.claim("spring", user, options)
                seen[type(outcome).__name__] += 1
                if isinstance(outcome, Claimed | HoldContinued | AlreadyClaimed):
                    await asyncio.sleep(chance.uniform(0, 0.2))
                    transitions = chance.choice(instances).storage.claims
                    ended = chance.choice(["confirm", "cancel", "cancel", "leave"])
                    if ended == "confirm":
                        seen[type(await transitions.confirm(outcome.claim.id)).__name__] += 1
                    elif ended == "cancel" or outcome.claim.state is ClaimState.ACTIVE:
                        seen[type(await transitions.cancel(outcome.claim.id, ENTRY)).__name__] += 1
                else:
                    await asyncio.sleep(chance.uniform(0, 0.05))
            except ClaimsvcError as error:
                seen[type(error).__name__] += 1

    async def watch() -> None:
        while loop.time() < ends_at:
            assert 0 <= await left(instances[0]) <= 5
            seen["watched"] += 1
            await asyncio.sleep(0.01)

    await asyncio.gather(watch(), *(live(f"user-{n}", random.Random(n)) for n in range(50)))
    assert seen["watched"] > 10
    assert {"Claimed", "Cancelled", "Confirmed", "SoldOut"} <= seen.keys(), seen
    here = instances[0]
    for claim in await here.storage.claims.claims("spring", after=None, limit=100):  # type: ignore[union-attr]
        await here.storage.claims.cancel(claim.id, ENTRY)
    assert await left(here) == 5

    async def all_is_sold() -> bool:
        outcomes = await asyncio.gather(*(here.strategy.claim("spring", f"late-{n}") for n in range(10)))
        return {type(each) for each in outcomes} == {SoldOut, Claimed} or await left(here) == 0

    await until(all_is_sold, "five of the next ten have a unit")
    assert await left(here) == 0


def once(key: str, asked: str = "the same", request_id: str = "first") -> IdempotencyKey:
    return IdempotencyKey("ada's program", key, hashlib.sha256(asked.encode()).digest(), request_id)


async def test_what_offers_closes_and_confirms_under_a_key_is_done_once_and_answered_alike(here: Instance) -> None:
    campaigns, transitions = here.storage.campaigns, here.storage.claims

    async def offered(each: IdempotencyKey) -> object:
        return await campaigns.create("spring", 5, StrategyName.REDLOCK, Campaign(), each, actor="key:of-shop")

    many = [once("offer", request_id=f"request {number}") for number in range(10)]
    made = await asyncio.gather(*(offered(each) for each in many))
    [coupon] = [each for each in made if isinstance(each, Coupon)]
    assert [each.answer for each in made if isinstance(each, Replayed)] == [coupon] * 9
    assert await offered(once("offer", "another amount")) == KeyReused()
    assert await offered(once("another key")) == CouponExists()
    assert await offered(once("another key", request_id="second")) == Replayed(CouponExists(), "first")

    held = await claimed(here, "ada", HELD)
    confirmed = await transitions.confirm(held, once("confirm"))
    assert isinstance(confirmed, Confirmed)
    await transitions.cancel(held, ENTRY)
    assert await transitions.confirm(held, once("confirm", request_id="second")) == Replayed(confirmed, "first")
    assert isinstance(await transitions.confirm(held, once("later")), AlreadyCancelled)

    closed = await campaigns.change("spring", {}, ENTRY, archive=True, idempotency_key=once("archive"))
    assert isinstance(closed, CouponDetail)
    again = await campaigns.change(
        "spring", {}, ENTRY, archive=True, idempotency_key=once("archive", request_id="second")
    )
    assert again == Replayed(closed, "first")
    assert await transitions.confirm(held, once("confirm")) == Replayed(confirmed, "first")
    assert await campaigns.change("spring", {}, ENTRY, archive=True, idempotency_key=once("archive")) == Replayed(
        closed, "first"
    )
    assert await offered(once("another key")) == Replayed(CouponExists(), "first")
    assert (
        len(await entries_about(here.storage, ENTRY.subject_type, ENTRY.subject, limit=10)) == 2
    )  # and that of cancelling
