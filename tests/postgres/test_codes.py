"""Codes over connections that are cut: what was committed is known to be ours, and is not done twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from claimsvc.domain import (
    AuditEntry,
    Cancelled,
    Claimed,
    ClaimOptions,
    CodesAdded,
    Confirmed,
    NewCode,
    Redeemed,
    RefusedRow,
    RowReason,
    RowsRefused,
    StrategyName,
)
from claimsvc.postgres import Repositories
from claimsvc.postgres.code_batch import CodeBatch
from claimsvc.postgres.connections import Driver
from tests.support.databases import administrate
from tests.support.proxy import Proxy
from tests.support.storage import attempts, create_coupon, entries_about, open_storage, open_storage_through_a_proxy

ENTRY = AuditEntry("test", "codes.add", "coupon", "spring")


@pytest.fixture
async def cut(database_url: str) -> AsyncIterator[tuple[Repositories, Proxy]]:
    """A storage with the coupon `spring`, and the proxy to its database."""
    async with open_storage_through_a_proxy(database_url) as (storage, observed, proxy):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
        yield storage, proxy
        assert proxy.cuts == 1
        assert observed.connections["in_use"] == 0


async def rows(*codes: str) -> AsyncIterator[Sequence[NewCode]]:
    yield [NewCode(row, code) for row, code in enumerate(codes, 1)]


async def with_terms() -> AsyncIterator[Sequence[NewCode]]:
    yield [NewCode(1, "a", None, "vip", {"text": "tea"}), NewCode(2, "b")]


async def terms(storage: Repositories, code: str) -> tuple[Any, Any]:
    found = await storage.codes.code(code)
    assert found is not None
    return found.type, found.benefit


async def amounts(storage: Repositories) -> tuple[int, int]:
    detail = await storage.coupons.coupon("spring", claimants=0)
    assert detail is not None
    return detail.coupon.amount, detail.coupon.remaining_amount


@pytest.mark.parametrize("atomic", [True, False])
async def test_codes_whose_commit_is_lost_are_added_once(cut: tuple[Repositories, Proxy], atomic: bool) -> None:
    storage, proxy = cut
    proxy.cut_after(b"COMMIT")
    assert await storage.codes.add("spring", rows("b", "a"), ENTRY, atomic=atomic) == CodesAdded(2)
    assert await amounts(storage) == (2, 2)
    assert [each.action for each in await entries_about(storage, "coupon", "spring", limit=10)] == [
        "codes.add",
        "coupon.create",
    ]


async def test_codes_that_are_made_are_made_once(cut: tuple[Repositories, Proxy]) -> None:
    storage, proxy = cut
    proxy.cut_after(b"COMMIT")
    assert await storage.codes.generate("spring", 50, "AAAA-9999", None, ENTRY) == CodesAdded(50)
    assert await amounts(storage) == (50, 50)


async def test_a_dead_code_is_replaced_once(cut: tuple[Repositories, Proxy], database_url: str) -> None:
    storage, proxy = cut
    await storage.codes.add("spring", rows("a", "b", "c"), ENTRY, atomic=True)
    [attempt] = attempts("ada")
    [held] = await storage.admission.admit([replace(attempt, options=ClaimOptions(hold_seconds=60))])
    assert isinstance(held, Claimed)
    administrate(database_url, "UPDATE codes SET expires_at = now() WHERE code = 'a'")
    proxy.cut_after(b"COMMIT")
    confirmed = await storage.claims.confirm(held.claim.id)
    assert isinstance(confirmed, Confirmed)
    assert confirmed.claim.code == "b"
    assert await amounts(storage) == (2, 1)


async def test_what_was_added_with_terms_is_not_refused_because_the_coupon_has_some_by_now(
    cut: tuple[Repositories, Proxy], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coupon is given a type between the commit that is lost and the transaction that finds out about it."""
    storage, proxy = cut
    begin, begun = CodeBatch.begin, 0

    async def begin_later(batch: CodeBatch, driver: Driver) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            administrate(database_url, "UPDATE campaigns SET type = 'welcome'")
        await begin(batch, driver)

    monkeypatch.setattr(CodeBatch, "begin", begin_later)
    proxy.cut_after(b"COMMIT")
    assert await storage.codes.add("spring", with_terms(), ENTRY, atomic=True) == CodesAdded(2)
    assert begun == 2
    assert await amounts(storage) == (2, 2)
    assert [await terms(storage, code) for code in ("a", "b")] == [("vip", {"text": "tea"}), ("welcome", None)]


@pytest.mark.parametrize("transition", ["claimed", "redeemed", "cancelled"])
async def test_what_becomes_of_a_code_becomes_of_it_once(cut: tuple[Repositories, Proxy], transition: str) -> None:
    storage, proxy = cut
    await storage.codes.add("spring", rows("a", "b"), ENTRY, atomic=True)
    if transition == "claimed":
        proxy.cut_after(b"COMMIT")
    [claimed] = await storage.admission.admit(attempts("ada"))
    assert isinstance(claimed, Claimed)
    assert claimed.claim.code == "a"
    if transition == "redeemed":
        proxy.cut_after(b"COMMIT")
        assert isinstance(await storage.codes.redeem("a", ENTRY), Redeemed)
    if transition == "cancelled":
        proxy.cut_after(b"COMMIT")
        assert isinstance(await storage.claims.cancel(claimed.claim.id, ENTRY), Cancelled)
    assert await amounts(storage) == ((1, 1) if transition == "cancelled" else (2, 1))


@pytest.mark.parametrize("atomic", [True, False])
async def test_an_upload_and_a_change_of_the_coupon_at_the_same_time_are_decided_by_the_lock(
    database_url: str, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    """The coupon gets a type after the rows were looked at, and before its row is locked."""
    finish, finished = CodeBatch.finish, 0
    async with open_storage(database_url) as (storage, _):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)

        async def finish_later(batch: CodeBatch, driver: Driver) -> None:
            nonlocal finished
            finished += 1
            if finished == 1:
                await storage.campaigns.change("spring", {"type": "welcome"}, ENTRY)
            await finish(batch, driver)

        monkeypatch.setattr(CodeBatch, "finish", finish_later)
        refused = (RefusedRow(1, "a", RowReason.COUPON_HAS_TYPE),)
        answer = await storage.codes.add("spring", with_terms(), ENTRY, atomic=atomic)
        assert answer == (RowsRefused(refused, 1) if atomic else CodesAdded(1, refused, 1))
        assert await amounts(storage) == ((5, 5) if atomic else (1, 1))
        assert await storage.codes.code("a") is None


async def test_uploads_at_the_same_time_have_a_hundred_types_at_most_and_each_once(database_url: str) -> None:
    async def upload(storage: Repositories, number: int) -> int:
        async def rows() -> AsyncIterator[Sequence[NewCode]]:
            yield [NewCode(row, f"{number}-{row}", None, f"type-{(number * 15 + row) % 140}") for row in range(30)]

        answer = await storage.codes.add("spring", rows(), ENTRY, atomic=False)
        assert isinstance(answer, CodesAdded)
        assert {row.reason for row in answer.refused} <= {RowReason.TOO_MANY_TYPES}
        return answer.added

    async with open_storage(database_url) as (storage, _):
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
        added = await asyncio.gather(*(upload(storage, number) for number in range(8)))
    [(types, of_codes, codes)] = administrate(
        database_url,
        """
        SELECT (SELECT array_agg(each ORDER BY each) FROM campaigns, unnest(code_types) AS each),
            array_agg(DISTINCT own_type ORDER BY own_type), count(*) FROM codes
        """,
    )
    assert types == of_codes
    assert len(of_codes) == 100  # type: ignore[arg-type]
    assert codes == sum(added)
