"""A batch that is handed over is decided once, by whoever commits first, and nobody gets anything of it after that."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uuid_utils.compat as uuid_utils

from claimsvc.claiming.combining.messages import handed_batch
from claimsvc.domain import PLAIN, Attempt, Campaign, ClaimOptions, IdempotencyKey, StrategyName
from claimsvc.ports import AllClaimed, BatchDecisions, HandedBatch
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming import fast_path
from claimsvc.postgres.claiming.fence import begin_fenced
from tests.support.databases import administrate
from tests.support.storage import (
    attempts,
    broken_sums,
    create_coupon,
    kinds,
    open_maintenance,
    open_storage,
    open_storage_through_a_proxy,
    remaining,
)

pytestmark = pytest.mark.usefixtures("sold_first")

_LIMITED = replace(PLAIN, per_user_limit=2)


def batch_of(*users: str, on: str = "spring", options: ClaimOptions | None = None) -> HandedBatch:
    made = [replace(each, options=options) for each in attempts(*users, on=on)]
    return _batch(str(uuid_utils.uuid7()), made)


def _batch(id_: str, made: Sequence[Attempt]) -> HandedBatch:
    batch = handed_batch(id_, made[0].coupon_name, made)
    assert batch is not None
    return batch


def said(decisions: BatchDecisions | None) -> list[str] | str | None:
    """What was decided on a batch."""
    if decisions is None or isinstance(decisions, AllClaimed):
        return decisions if decisions is None else "all claimed"
    return kinds(list(decisions))


async def decide(storage: Repositories, *batches: HandedBatch) -> list[list[str] | str | None]:
    _, handed = await storage.admission.admit_handed((), batches)
    return [said(each) for each in handed]


async def test_batches_are_decided_after_ones_own_claims_in_the_order_of_their_arrival(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 4, StrategyName.REDLOCK)
    own, handed = await storage.admission.admit_handed(
        attempts("ada"), [batch_of("ben", "cleo"), batch_of("dora", "ben", "emil")]
    )
    assert kinds(own) == ["Claimed"]
    assert [said(each) for each in handed] == ["all claimed", ["Claimed", "AlreadyClaimed", "SoldOut"]]
    assert await remaining(storage) == 0


async def test_a_batch_that_was_doubled_is_decided_once(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    batch = batch_of("ada", "ben")
    assert await decide(storage, batch) == ["all claimed"]
    assert await decide(storage, batch) == [None]
    assert await remaining(storage) == 3


async def test_of_two_holders_one_decides(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_coupon(one, "spring", 1000, StrategyName.REDLOCK)
        for number in range(20):
            batch = batch_of(f"ada-{number}", f"ben-{number}")
            decided = await asyncio.gather(decide(one, batch), decide(other, batch))
            assert sorted(decided, key=str) == [["all claimed"], [None]]
        assert await remaining(one) == 1000 - 40
    assert not broken_sums(database_url)


async def test_one_batch_that_was_decided_before_does_not_refuse_the_others(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    stale = batch_of("ada")
    await decide(storage, stale)
    own, handed = await storage.admission.admit_handed(attempts("ben"), [stale, batch_of("cleo")])
    assert kinds(own) == ["Claimed"]
    assert [said(each) for each in handed] == [None, "all claimed"]
    assert await remaining(storage) == 2


@pytest.mark.parametrize("campaign", [PLAIN, _LIMITED], ids=["plain", "with a rule"])
async def test_who_was_told_that_it_is_sold_out_gets_nothing_later(
    database_url: str, storage: Repositories, campaign: Campaign
) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK, campaign)
    batch = batch_of("ben")
    _, [handed] = await storage.admission.admit_handed(attempts("ada"), [batch])
    assert said(handed) == ["SoldOut"]
    administrate(database_url, "UPDATE coupons SET amount = 10, remaining_amount = 9 WHERE name = 'spring'")
    assert await decide(storage, batch) == [None]
    assert await remaining(storage) == 9


async def test_who_has_cancelled_gets_nothing_again(database_url: str, storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    batch = batch_of("ada")
    await decide(storage, batch)
    administrate(
        database_url,
        "WITH ended AS (DELETE FROM user_claims) UPDATE coupons SET remaining_amount = amount WHERE name = 'spring'",
    )
    assert await decide(storage, batch) == [None]
    assert await remaining(storage) == 5


async def test_a_batch_that_was_withheld_is_decided_by_nobody(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    batch = batch_of("ada")
    assert await storage.admission.withhold(batch)
    assert await decide(storage, batch) == [None]
    assert not await storage.admission.withhold(batch)
    assert await remaining(storage) == 5


async def test_what_another_has_decided_is_recalled(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 2, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("ada"))
    batch = batch_of("ada", "ben", "cleo")
    await decide(storage, batch)
    assert not await storage.admission.withhold(batch)
    recalled = await storage.admission.recall(batch)
    assert kinds(recalled) == ["AlreadyClaimed", "Claimed", "SoldOut"]


async def test_of_withholding_and_deciding_at_once_one_happens(database_url: str) -> None:
    async with open_storage(database_url) as (holder, _), open_storage(database_url) as (origin, _):
        await create_coupon(holder, "spring", 100, StrategyName.REDLOCK)
        for number in range(20):
            batch = batch_of(f"ada-{number}")
            decided, withheld = await asyncio.gather(decide(holder, batch), origin.admission.withhold(batch))
            assert (decided, withheld) in [(["all claimed"], False), ([None], True)]


_KEY = IdempotencyKey("caller", "key", b"digest", "request")


@pytest.mark.parametrize(
    ("campaign", "options", "expected"),
    [
        (_LIMITED, None, "all claimed"),
        (PLAIN, ClaimOptions(idempotency_key=_KEY), "all claimed"),
        (PLAIN, ClaimOptions(hold_seconds=60), ["Claimed"]),
    ],
    ids=["rules", "idempotency key", "hold"],
)
async def test_claims_that_need_more_than_a_unit_are_handed_over_too(
    storage: Repositories, campaign: Campaign, options: ClaimOptions | None, expected: object
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, campaign)
    batch = batch_of("ada", options=options)
    own, [handed] = await storage.admission.admit_handed(attempts("ben"), [batch])
    assert kinds(own) == ["Claimed"]
    assert said(handed) == expected
    assert await decide(storage, batch) == [None]
    assert await remaining(storage) == 3


async def test_a_batch_whose_coupon_ends_while_it_is_decided_is_decided_whole(
    storage: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = datetime.now(UTC) + timedelta(seconds=0.5)
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK, replace(PLAIN, ends_at=ends_at))

    async def fence_and_wait(*arguments: Any, **options: Any) -> set[str]:
        ours = await begin_fenced(*arguments, **options)
        assert datetime.now(UTC) < ends_at
        await asyncio.sleep(0.6)
        return ours

    monkeypatch.setattr(fast_path, "begin_fenced", fence_and_wait)
    assert await decide(storage, batch_of("ada", "ben")) == [["Claimed", "SoldOut"]]


async def test_a_claim_that_the_database_refuses_fails_alone(database_url: str, storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    administrate(database_url, "ALTER TABLE user_claims ADD CONSTRAINT no_mallory CHECK (user_id <> 'mallory')")
    bad = batch_of("ben", "mallory")
    own, handed = await storage.admission.admit_handed(attempts("ada"), [bad])
    assert kinds(own) == ["Claimed"]
    assert handed == [None]
    # Its origin takes it back, and decides it.
    assert await storage.admission.withhold(bad)
    assert kinds(await storage.admission.admit(bad.attempts)) == ["Claimed", "InvariantViolatedError"]
    assert await remaining(storage) == 3


async def test_after_a_commit_in_doubt_the_origin_finds_what_was_decided(database_url: str) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, _, proxy):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
        batch = batch_of("ben")
        proxy.cut_after(b"COMMIT")
        own, handed = await storage.admission.admit_handed(attempts("ada"), [batch])
        assert kinds(own) == ["Claimed"]
        assert handed == [None]
        assert not await storage.admission.withhold(batch)
        assert kinds(await storage.admission.recall(batch)) == ["Claimed"]
        assert await remaining(storage) == 3


async def test_a_batch_that_was_forgotten_is_not_decided_again(database_url: str, storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    administrate(database_url, "UPDATE coupons SET fenced_after = '00000000-0000-7000-8000-000000000000'")
    old, new = (_batch(_id_of(seconds_ago=ago), attempts(user)) for ago, user in ((90_000, "ada"), (80_000, "ben")))
    assert await decide(storage, old, new) == ["all claimed", "all claimed"]
    async with open_maintenance(database_url) as maintenance:
        assert await maintenance.purge_fence(limit=100) == 1
        assert await maintenance.purge_fence(limit=100) == 0
    administrate(
        database_url,
        "WITH ended AS (DELETE FROM user_claims) UPDATE coupons SET remaining_amount = amount WHERE name = 'spring'",
    )
    assert await decide(storage, old, new) == [None, None]


async def test_a_batch_from_before_the_coupon_was_made_again_is_not_decided(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    before = _batch(_id_of(seconds_ago=90_000), attempts("ada"))
    assert await decide(storage, before) == [None]
    assert await remaining(storage) == 5


def _id_of(*, seconds_ago: int) -> str:
    """A UUID of version 7 of that time."""
    milliseconds = int((time.time() - seconds_ago) * 1000)
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | seconds_ago))
