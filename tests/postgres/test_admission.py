"""PostgreSQL decides: what one transaction admits, alone and against others."""

import asyncio
import contextlib
from collections import Counter

import psycopg
import pytest

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Campaign,
    Claimed,
    Coupon,
    CouponExists,
    SoldOut,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.postgres import Repositories
from tests.support.databases import administrate
from tests.support.storage import attempts, create_coupon, kinds, remaining
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("sold_first")

_WAITS = """
SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%coupons%'
"""
_MAKE_AND_CANCEL = """
INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, ended_at)
VALUES (gen_random_uuid(), 'spring', 'ada', 'cancelled', now(), now());
UPDATE coupons SET ended_count = coalesce(ended_count, 0) + 1 WHERE name = 'spring'
"""


async def test_the_first_in_line_get_what_is_left(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 2, StrategyName.REDLOCK)
    decisions = await storage.admission.admit(attempts("ada", "ben", "cleo"))
    assert kinds(decisions) == ["Claimed", "Claimed", "SoldOut"]
    assert await remaining(storage) == 0


async def test_who_holds_a_claim_gets_it_back_and_takes_no_stock(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 2, StrategyName.REDLOCK)
    [first] = await storage.admission.admit(attempts("ada"))
    assert isinstance(first, Claimed)
    again, other = await storage.admission.admit(attempts("ada", "ben"))
    assert again == AlreadyClaimed(first.claim)
    assert isinstance(other, Claimed)


async def test_a_user_twice_in_a_batch_is_admitted_once_and_takes_one_unit(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 2, StrategyName.REDLOCK)
    first, second, other = await storage.admission.admit(attempts("ada", "ada", "ben"))
    assert isinstance(first, Claimed)
    assert second == AlreadyClaimed(first.claim)
    assert isinstance(other, Claimed)


async def test_who_holds_a_claim_is_told_so_even_when_nothing_is_left(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("ada"))
    assert kinds(await storage.admission.admit(attempts("ada", "ben"))) == ["AlreadyClaimed", "SoldOut"]


async def test_a_claim_that_ended_while_another_waited_for_the_row_is_counted(
    storage: Repositories, database_url: str
) -> None:
    """Two lock holders: what the waiting statement has counted is older than the row that it is given."""
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(claims_per_user=1))
    url = database_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("SELECT FROM coupons WHERE name = 'spring' FOR NO KEY UPDATE")
        waiting = asyncio.create_task(storage.admission.admit(attempts("ada", "ben")))
        await until(lambda: bool(administrate(database_url, _WAITS)), "the claim waits for the row")
        await other.execute(_MAKE_AND_CANCEL)
    assert kinds(await waiting) == ["TooManyClaims", "Claimed"]
    assert await remaining(storage) == 4


async def test_a_coupon_of_an_earlier_version_has_its_ended_claims_counted(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(claims_per_user=1))
    administrate(database_url, _MAKE_AND_CANCEL.split(";")[0])
    administrate(database_url, "UPDATE coupons SET ended_count = NULL")
    assert kinds(await storage.admission.admit(attempts("ada", "ben", "ada"))) == [
        "TooManyClaims",
        "Claimed",
        "TooManyClaims",
    ]
    assert await remaining(storage) == 4


async def test_several_coupons_are_decided_in_one_transaction_each_by_its_own_stock(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 2, StrategyName.REDLOCK)
    await create_coupon(storage, "autumn", 1, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("ada", on="autumn"))
    mixed = [
        *attempts("ada", on="spring"),
        *attempts("ada", "ben", on="autumn"),
        *attempts("ada", "ben", "cleo", on="spring"),
        *attempts("ada", on="winter"),
    ]
    assert kinds(await storage.admission.admit(mixed)) == [
        "Claimed",
        "AlreadyClaimed",
        "SoldOut",
        "AlreadyClaimed",
        "Claimed",
        "SoldOut",
        "UnknownCoupon",
    ]
    assert await remaining(storage, "spring") == 0
    assert await remaining(storage, "autumn") == 0


async def test_transactions_over_the_same_coupons_in_any_order_never_wait_for_each_other(
    storage: Repositories,
) -> None:
    names = [f"coupon-{i}" for i in range(8)]
    for name in names:
        await create_coupon(storage, name, 1000, StrategyName.REDLOCK)

    def shuffled(batch: int) -> list[Attempt]:
        order = names[batch % 8 :] + names[: batch % 8]
        return [a for name in (order if batch % 2 else order[::-1]) for a in attempts(f"user-{batch}", on=name)]

    batches = await asyncio.gather(*(storage.admission.admit(shuffled(batch)) for batch in range(40)))
    assert Counter(kind for batch in batches for kind in kinds(batch)) == {"Claimed": 320}


async def test_an_unknown_coupon_is_not_a_sold_out_one(storage: Repositories) -> None:
    assert await storage.admission.admit(attempts("ada", "ben", on="nothing")) == [UnknownCoupon(), UnknownCoupon()]


async def test_a_coupon_is_created_once(storage: Repositories) -> None:
    created = await asyncio.gather(*(create_coupon(storage, "spring", 5, StrategyName.REDLOCK) for _ in range(4)))
    assert Counter(type(result) for result in created) == {Coupon: 1, CouponExists: 3}


async def test_without_any_lock_concurrent_transactions_admit_exactly_the_stock(storage: Repositories) -> None:
    """Two lock holders at once are possible. Here there is no lock at all."""
    for round_number in range(10):
        name = f"round-{round_number}"
        await create_coupon(storage, name, 5, StrategyName.REDLOCK)
        batches = await asyncio.gather(
            *(
                storage.admission.admit(attempts(*(f"{b}-{i}" for i in range(3)), f"both-{b % 2}", on=name))
                for b in range(12)
            )
        )
        counted = Counter(kind for batch in batches for kind in kinds(batch))
        assert counted["Claimed"] == 5
        assert counted["Claimed"] + counted["AlreadyClaimed"] + counted["SoldOut"] == 48
        assert await remaining(storage, name) == 0


async def test_without_any_lock_one_user_is_admitted_once(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 100, StrategyName.REDLOCK)
    batches = await asyncio.gather(*(storage.admission.admit(attempts("ada")) for _ in range(20)))
    assert Counter(kind for batch in batches for kind in kinds(batch)) == {"Claimed": 1, "AlreadyClaimed": 19}
    assert await remaining(storage) == 99


async def test_claims_are_listed_in_the_order_of_their_admission(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 10, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("zoe", "ada"))
    await storage.admission.admit(attempts("mia", "ben"))
    detail = await storage.coupons.coupon("spring", claimants=3)
    assert detail is not None
    assert detail.claimed_by == ("zoe", "ada", "mia")


async def test_a_row_that_the_database_refuses_sinks_alone(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 10, StrategyName.REDLOCK)
    poisoned = attempts("ada", "ben", "x" * 256, "cleo", "dan")
    decisions = await storage.admission.admit(poisoned)
    assert kinds(decisions) == ["Claimed", "Claimed", "InvariantViolatedError", "Claimed", "Claimed"]
    assert await remaining(storage) == 6


async def test_a_line_break_in_a_user_id_never_makes_two_users_of_one(storage: Repositories) -> None:
    """The statement takes ids as lines. No such id passes the API; one that did would have to sink alone, too."""
    await create_coupon(storage, "spring", 10, StrategyName.REDLOCK)
    decisions = await storage.admission.admit(attempts("ada", "b\nen", "cleo"))
    assert kinds(decisions) == ["Claimed", "InvariantViolatedError", "Claimed"]
    detail = await storage.coupons.coupon("spring", claimants=10)
    assert detail is not None
    assert detail.claimed_by == ("ada", "cleo")


async def test_a_stock_that_contradicts_itself_is_noticed_and_nothing_is_kept(
    storage: Repositories, database_url: str
) -> None:
    """Something lets the claims in but drops the decrement: the transaction must not be committed."""
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    administrate(
        database_url,
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER skip BEFORE UPDATE ON coupons FOR EACH ROW EXECUTE FUNCTION skip()",
    )
    with pytest.raises(InvariantViolatedError):
        await storage.admission.admit(attempts("ada"))
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(0,)]


async def test_a_claim_that_the_database_drops_takes_no_unit_with_it(storage: Repositories, database_url: str) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    administrate(
        database_url,
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER skip BEFORE INSERT ON user_claims FOR EACH ROW WHEN (NEW.user_id = 'ben')"
        " EXECUTE FUNCTION skip()",
    )
    with contextlib.suppress(InvariantViolatedError):
        assert kinds(await storage.admission.admit(attempts("ada", "ben")))[1] != "Claimed"
    detail = await storage.coupons.coupon("spring", claimants=5)
    assert detail is not None
    assert detail.coupon.remaining_amount == 5 - len(detail.claimed_by)


async def test_a_batch_that_gets_all_it_asks_for_makes_the_next_be_sold_as_one(
    storage: Repositories,
) -> None:
    """And whatever that sale cannot do is decided claim by claim, with the same result."""
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    [first] = await storage.admission.admit(attempts("ada"))
    assert isinstance(first, Claimed)
    assert kinds(await storage.admission.admit(attempts("ben", "cleo"))) == ["Claimed", "Claimed"]
    again, other = await storage.admission.admit(attempts("ada", "dan"))
    assert again == AlreadyClaimed(first.claim)
    assert isinstance(other, Claimed)
    assert kinds(await storage.admission.admit(attempts("eve", "fay"))) == ["Claimed", "SoldOut"]
    assert await remaining(storage) == 0


async def test_a_row_lock_that_another_keeps_is_waited_for_no_longer_than_the_limit(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("SELECT FROM coupons FOR UPDATE")
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(10):
                await storage.admission.admit(attempts("ada"))
    assert kinds(await storage.admission.admit(attempts("ada"))) == ["Claimed"]


async def test_a_look_tells_all_but_whom_to_admit_and_waits_for_no_lock(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.COUNTER)
    await create_coupon(storage, "autumn", 1, StrategyName.COUNTER)
    [claimed] = await storage.admission.admit(attempts("ada"))
    assert isinstance(claimed, Claimed)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("SELECT FROM coupons FOR UPDATE")
        looked = await storage.admission.look(
            [*attempts("ada", "ben"), *attempts("ben", on="autumn"), *attempts("ben", on="winter")]
        )
    assert looked == [AlreadyClaimed(claimed.claim), SoldOut(), None, UnknownCoupon()]


async def test_sold_out_is_said_of_an_empty_stock(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("ada"))
    assert await storage.admission.admit(attempts("ben")) == [SoldOut()]
