"""Coupons with codes under every strategy: each claim has one, and no code is given twice, lost, or seen by another."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from claimsvc.domain import (
    AlreadyClaimed,
    AlreadyRedeemed,
    AmountIsCodes,
    AuditEntry,
    Campaign,
    Cancelled,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimState,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    CodeState,
    CodeTerms,
    Confirmed,
    HoldContinued,
    IdempotencyKey,
    NewCode,
    NotYourClaim,
    Redeemed,
    RefusedRow,
    Replayed,
    RowReason,
    RowsRefused,
    SoldOut,
    StrategyName,
    UnknownCode,
    UnknownCoupon,
    code_generation,
)
from claimsvc.postgres import code_additions
from tests.behaviour.test_life_of_a_claim import keyed
from tests.support.storage import create_coupon, entries_about
from tests.support.strategy_instances import STRATEGIES, Instance, open_instance

ENTRY = AuditEntry("test", "codes.add", "coupon", "spring")
HELD = ClaimOptions(hold_seconds=60)
# The issue of the whole life asks for 10,000 codes and 20,000 claims; this is enough for every batch to meet others.
_CODES = int(os.environ.get("CLAIMSVC_TEST_CODES", "1000"))


@pytest.fixture(params=STRATEGIES)
async def instances(
    request: pytest.FixtureRequest, database_url: str, redis_urls: tuple[str, ...]
) -> AsyncIterator[Sequence[Instance]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_instance(request.param, database_url, redis_urls)) for _ in "123"]


@pytest.fixture
def here(instances: Sequence[Instance]) -> Instance:
    return instances[0]


async def rows_of(rows: Sequence[NewCode | RefusedRow], *, each: int = 7) -> AsyncIterator[Sequence[Any]]:
    for start in range(0, len(rows), each):
        yield rows[start : start + each]


def new_codes(count: int, prefix: str = "C", expires_at: datetime | None = None) -> list[NewCode]:
    return [NewCode(row, f"{prefix}-{row}", expires_at) for row in range(1, count + 1)]


async def add(instance: Instance, rows: Sequence[NewCode | RefusedRow], *, atomic: bool = True) -> Any:
    return await instance.storage.codes.add("spring", rows_of(rows), ENTRY, atomic=atomic)


async def offer(instance: Instance, codes: int, **rules: Any) -> None:
    await create_coupon(instance.storage, "spring", 5, StrategyName.REDLOCK, Campaign(**rules))
    if codes:
        assert await add(instance, new_codes(codes)) == CodesAdded(codes)


async def stock(instance: Instance) -> tuple[int, int]:
    """The amount and what remains of it; what must be true of a pool is, in the same snapshot."""
    url = instance.database_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(
            """
            SELECT amount, remaining_amount,
                (SELECT count(*) FROM codes WHERE claim_id IS NULL AND voided_at IS NULL),
                (SELECT count(*) FROM user_claims WHERE state = 'active'),
                (SELECT count(*) FROM user_claims JOIN codes ON claim_id = id WHERE state = 'active'
                    AND voided_at IS NULL)
            FROM coupons WHERE name = 'spring'
            """
        )
        [(amount, remaining, free, active, with_code)] = await cursor.fetchall()
    assert remaining == free
    assert amount - remaining == active == with_code
    return amount, remaining


async def execute(instance: Instance, statement: str) -> None:
    url = instance.database_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement.encode())


async def claimed(instance: Instance, user: str, options: ClaimOptions | None = None) -> Claim:
    outcome = await instance.strategy.claim("spring", user, options)
    assert isinstance(outcome, Claimed), outcome
    return outcome.claim


async def test_every_code_is_given_once_and_none_is_lost(instances: Sequence[Instance]) -> None:
    await offer(instances[0], _CODES)
    outcomes: list[Any] = []

    async def claim_on(instance: Instance, users: Sequence[int]) -> None:
        for start in range(0, len(users), 100):
            claims = [instance.strategy.claim("spring", f"u{user}") for user in users[start : start + 100]]
            outcomes.extend(await asyncio.gather(*claims))

    await asyncio.gather(*(claim_on(each, range(n, 2 * _CODES, 3)) for n, each in enumerate(instances)))
    assert Counter(map(type, outcomes)) == {Claimed: _CODES, SoldOut: _CODES}
    given = Counter(outcome.claim.code for outcome in outcomes if isinstance(outcome, Claimed))
    assert given == Counter(code.code for code in new_codes(_CODES))
    assert await stock(instances[0]) == (_CODES, 0)
    assert await instances[0].storage.codes.count(None) == CodeCounts(_CODES, _CODES)


async def test_a_claim_shows_its_code_wherever_it_is_shown(here: Instance) -> None:
    await offer(here, 2)
    first = await claimed(here, "ada", keyed("k"))
    assert first.code == "C-1"
    assert await here.strategy.claim("spring", "ada") == AlreadyClaimed(first)
    replayed = await here.strategy.claim("spring", "ada", keyed("k"))
    assert isinstance(replayed, Replayed)
    assert replayed.answer == Claimed(first)
    assert await here.storage.claims.claim(first.id) == first
    listed = await here.storage.claims.claims("spring", after=None, limit=10)
    assert isinstance(listed, list)
    assert [each.code for each in listed] == ["C-1"]


async def test_each_claim_has_the_terms_of_its_code_whoever_gives_it(instances: Sequence[Instance]) -> None:
    rows = [
        NewCode(number, f"C-{number}", None, (None, "vip", "plain")[number % 3], {"text": f"C-{number}"})
        for number in range(1, 31)
    ]
    await offer(instances[0], 0, benefit=None)
    assert await add(instances[0], rows) == CodesAdded(30)
    outcomes = await asyncio.gather(*(instances[n % 3].strategy.claim("spring", f"u{n}") for n in range(40)))
    claims = [each.claim for each in outcomes if isinstance(each, Claimed)]
    own = {row.code: CodeTerms(row.type, row.benefit) for row in rows}
    assert {claim.code: claim.terms for claim in claims} == own
    for claim in claims[:3]:
        assert await instances[0].storage.claims.claim(claim.id) == claim
        assert await instances[1].strategy.claim("spring", claim.user_id) == AlreadyClaimed(claim)
    counted = [await instances[2].storage.codes.count(coupon_type) for coupon_type in (None, "vip", "plain")]
    assert counted == [CodeCounts(10, 10)] * 3
    assert set(await instances[2].storage.codes.types()) == {None, "vip", "plain"}


async def test_each_unit_of_a_user_has_a_code_of_its_own(here: Instance) -> None:
    await offer(here, 5, per_user_limit=3)
    outcomes = await asyncio.gather(*(here.strategy.claim("spring", "ada") for _ in range(5)))
    assert Counter(map(type, outcomes)) == {Claimed: 3, AlreadyClaimed: 2}
    assert {each.claim.code for each in outcomes if isinstance(each, Claimed)} == {"C-1", "C-2", "C-3"}
    assert await stock(here) == (5, 2)


async def test_the_code_of_a_hold_is_shown_when_it_is_confirmed_and_returns_unseen(here: Instance) -> None:
    await offer(here, 2)
    held = await claimed(here, "ada", HELD)
    assert (held.state, held.code) == (ClaimState.HELD, None)
    assert (await here.storage.claims.claim(held.id)) == held
    code = await here.storage.codes.code("C-1")
    assert code is not None
    assert code.state is CodeState.HELD
    assert await here.storage.codes.redeem("C-1", ENTRY) == CodeNotClaimed()
    confirmed = await here.storage.claims.confirm(held.id)
    assert isinstance(confirmed, Confirmed)
    assert confirmed.claim.code == "C-1"
    second = await claimed(here, "bob", HELD)
    kept = await here.strategy.claim("spring", "bob")
    assert isinstance(kept, HoldContinued)
    assert (kept.claim.id, kept.claim.code) == (second.id, "C-2")
    assert await stock(here) == (2, 0)


@pytest.mark.parametrize("ends", ["cancelled", "expired"])
async def test_a_hold_that_ends_gives_its_code_to_the_next(here: Instance, ends: str) -> None:
    await offer(here, 1)
    held = await claimed(here, "ada", HELD)
    assert isinstance(await here.strategy.claim("spring", "bob"), SoldOut)
    if ends == "cancelled":
        assert isinstance(await here.storage.claims.cancel(held.id, ENTRY), Cancelled)
        assert await stock(here) == (1, 1)
    else:
        await execute(here, "UPDATE user_claims SET held_until = now() - interval '1 second'")
    assert (await claimed(here, "bob")).code == "C-1"
    ended = await here.storage.claims.claim(held.id)
    assert ended is not None
    assert ended.code is None
    assert await stock(here) == (1, 0)


async def test_a_code_that_was_shown_is_never_given_again(here: Instance) -> None:
    await offer(here, 2)
    mine = await claimed(here, "ada")
    cancelled = await asyncio.gather(*(here.storage.claims.cancel(mine.id, ENTRY) for _ in range(10)))
    assert {type(each) for each in cancelled} == {Cancelled}
    assert await stock(here) == (1, 1)
    assert (await claimed(here, "ada")).code == "C-2"
    assert isinstance(await here.strategy.claim("spring", "bob"), SoldOut)
    assert await here.storage.codes.redeem("C-1", ENTRY) == CodeNotClaimed()
    assert await here.storage.codes.count(None) == CodeCounts(uploaded=2, claimed=1, voided=1)


async def test_a_generated_code_that_was_shown_is_replaced_by_a_new_one(here: Instance) -> None:
    await offer(here, 0)
    added = await here.storage.codes.generate("spring", 2, "AAAA-9999", None, ENTRY)
    assert added == CodesAdded(2)
    mine, other = await claimed(here, "ada"), await claimed(here, "bob")
    await asyncio.gather(*(here.storage.claims.cancel(mine.id, ENTRY) for _ in range(10)))
    assert await stock(here) == (2, 1)
    again = await claimed(here, "ada")
    assert len({mine.code, other.code, again.code}) == 3
    assert isinstance(await here.strategy.claim("spring", "eve"), SoldOut)


async def test_a_coupon_with_brought_codes_gets_none_of_ours(here: Instance) -> None:
    await offer(here, 0)
    await here.storage.codes.generate("spring", 1, "AAAA-9999", None, ENTRY)
    await add(here, new_codes(1))
    await here.storage.codes.generate("spring", 1, "AAAA-9999", None, ENTRY)
    await here.storage.claims.cancel((await claimed(here, "ada")).id, ENTRY)
    assert await stock(here) == (2, 2)


async def test_a_code_is_redeemed_once_by_one_of_fifty(instances: Sequence[Instance]) -> None:
    here = instances[0]
    await offer(here, 1)
    assert await here.storage.codes.redeem("C-1", ENTRY) == CodeNotClaimed()
    mine = await claimed(here, "ada")
    redeemed = await asyncio.gather(*(instances[n % 3].storage.codes.redeem("C-1", ENTRY) for n in range(50)))
    assert Counter(map(type, redeemed)) == {Redeemed: 1, AlreadyRedeemed: 49}
    assert await here.storage.claims.cancel(mine.id, ENTRY) == AlreadyRedeemed()
    code = await here.storage.codes.code("C-1")
    assert code is not None
    assert (code.state, code.claim_id, code.redeemed_at is not None) == (CodeState.REDEEMED, mine.id, True)
    assert await here.storage.codes.redeem("C-2", ENTRY) == UnknownCode()
    assert await here.storage.codes.count(None) == CodeCounts(uploaded=1, claimed=1, redeemed=1)
    assert await stock(here) == (1, 0)


async def test_a_key_that_came_before_the_claim_redeems_its_code_after_it(here: Instance) -> None:
    await offer(here, 1)
    key = IdempotencyKey("till", "k", b"asked", "request-1")
    assert await here.storage.codes.redeem("C-1", ENTRY, key) == CodeNotClaimed()
    await claimed(here, "ada")
    redeemed = await here.storage.codes.redeem("C-1", ENTRY, key)
    assert isinstance(redeemed, Redeemed)
    assert await here.storage.codes.redeem("C-1", ENTRY, key) == Replayed(redeemed, "request-1")


async def test_a_code_is_not_redeemed_for_another_user_than_its_claim_s(here: Instance) -> None:
    await offer(here, 2)
    await claimed(here, "ada")
    held = await claimed(here, "bob", HELD)
    redeem = here.storage.codes.redeem
    assert await redeem("C-1", ENTRY, user_id="eve") == NotYourClaim()
    assert await redeem("C-2", ENTRY, user_id="eve") == NotYourClaim()
    assert await redeem("C-2", ENTRY, user_id="bob") == CodeNotClaimed()
    await here.storage.claims.cancel(held.id, ENTRY)
    assert await redeem("C-2", ENTRY, user_id="eve") == CodeNotClaimed()
    assert isinstance(await redeem("C-1", ENTRY, user_id="ada"), Redeemed)
    assert await redeem("C-1", ENTRY, user_id="eve") == NotYourClaim()
    assert await redeem("C-1", ENTRY, user_id="ada") == AlreadyRedeemed()
    assert await here.storage.codes.count(None) == CodeCounts(uploaded=2, claimed=1, redeemed=1)


async def test_of_redeeming_and_cancelling_at_once_one_happens(instances: Sequence[Instance]) -> None:
    here, there, _ = instances
    await offer(here, 20)
    claims = [await claimed(here, f"u{n}") for n in range(20)]
    for claim in claims:
        assert claim.code is not None
        redeemed, cancelled = await asyncio.gather(
            here.storage.codes.redeem(claim.code, ENTRY), there.storage.claims.cancel(claim.id, ENTRY)
        )
        assert isinstance(redeemed, Redeemed) != isinstance(cancelled, Cancelled)
    counts = await here.storage.codes.count(None)
    assert counts.redeemed + counts.voided == 20
    assert await stock(here) == (counts.redeemed, 0)


async def test_a_code_that_has_expired_is_neither_given_nor_redeemed(here: Instance) -> None:
    await offer(here, 3)
    await add(here, new_codes(2, "later", datetime.now(UTC) + timedelta(hours=1)))
    mine = [await claimed(here, f"u{n}") for n in range(4)]
    assert mine[3].code == "later-1"
    await execute(here, "UPDATE codes SET expires_at = now() - interval '1 second' WHERE expires_at IS NOT NULL")
    assert isinstance(await here.strategy.claim("spring", "bob"), SoldOut)
    assert await stock(here) == (4, 0)
    assert await here.storage.codes.redeem("later-1", ENTRY) == CodeExpired()
    assert await here.storage.codes.redeem("later-2", ENTRY) == CodeExpired()
    assert isinstance(await here.storage.codes.redeem("C-1", ENTRY), Redeemed)


async def test_codes_that_expire_leave_the_stock_though_nobody_claims(here: Instance) -> None:
    await offer(here, 1)
    await add(here, new_codes(2, "later", datetime.now(UTC) + timedelta(hours=1)))
    await execute(here, "UPDATE codes SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert await here.storage.codes.expire_due() == 2
    assert await here.storage.codes.expire_due() == 0
    assert await stock(here) == (1, 1)


async def test_claims_that_were_made_before_have_no_code_and_stay(here: Instance) -> None:
    await offer(here, 0)
    before = await claimed(here, "ada")
    await add(here, new_codes(2))
    detail = await here.storage.coupons.coupon("spring", claimants=9)
    assert detail is not None
    assert (detail.coupon.amount, detail.coupon.remaining_amount) == (3, 2)
    assert await here.strategy.claim("spring", "ada") == AlreadyClaimed(before)
    assert (await claimed(here, "bob")).code == "C-1"
    assert await here.storage.campaigns.change("spring", {"amount": 9}, ENTRY) == AmountIsCodes()
    assert isinstance(await here.storage.claims.cancel(before.id, ENTRY), Cancelled)
    assert await stock(here) == (2, 1)


async def test_a_hold_that_was_made_before_leaves_no_unit_without_a_code(here: Instance) -> None:
    await offer(here, 0)
    await claimed(here, "ada", HELD)
    await add(here, new_codes(2))
    await execute(here, "UPDATE user_claims SET held_until = now() - interval '1 second'")
    assert (await claimed(here, "bob")).code == "C-1"
    assert await stock(here) == (2, 1)


async def test_codes_that_are_added_while_claims_run_are_given_too(instances: Sequence[Instance]) -> None:
    here = instances[0]
    await offer(here, 10)

    async def grow() -> None:
        for number in range(9):
            await add(instances[number % 3], new_codes(10, f"more-{number}"))

    outcomes, _ = await asyncio.gather(
        asyncio.gather(*(instances[n % 3].strategy.claim("spring", f"u{n}") for n in range(200))), grow()
    )
    outcomes += await asyncio.gather(*(here.strategy.claim("spring", f"late-{n}") for n in range(200)))
    given = [each.claim.code for each in outcomes if isinstance(each, Claimed)]
    assert len(given) == len(set(given)) == 100
    assert await stock(here) == (100, 0)


@pytest.fixture
async def alone(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Instance]:
    async with open_instance(StrategyName.ROW_LOCK, database_url, redis_urls) as instance:
        yield instance


async def test_rows_are_refused_one_by_one_or_all_together(alone: Instance) -> None:
    await offer(alone, 3)
    bad = RefusedRow(4, "", RowReason.BAD_CODE)
    past = datetime.now(UTC) - timedelta(hours=1)
    doubled = NewCode(3, "new")
    rows: list[NewCode | RefusedRow]
    rows = [NewCode(1, "C-3"), NewCode(2, "new"), doubled, bad, NewCode(5, "old", past), NewCode(6, "fine")]
    expected = (
        RefusedRow(1, "C-3", RowReason.EXISTS),
        RefusedRow(3, "new", RowReason.DUPLICATE),
        bad,
        RefusedRow(5, "old", RowReason.EXPIRED),
    )
    # What is found without the database is told without it.
    assert await add(alone, rows) == RowsRefused((expected[1], bad), 2)
    fit = [row for row in rows if row not in (doubled, bad)]
    assert await add(alone, fit) == RowsRefused((expected[0], expected[3]), 2)
    assert await stock(alone) == (3, 3)
    assert await add(alone, rows, atomic=False) == CodesAdded(2, expected, 4)
    assert await stock(alone) == (5, 5)
    assert await alone.storage.codes.add("none", rows_of(rows), ENTRY, atomic=True) == UnknownCoupon()


async def test_a_code_belongs_to_one_coupon_only(alone: Instance) -> None:
    await offer(alone, 1)
    await create_coupon(alone.storage, "autumn", 5, StrategyName.REDLOCK)
    for atomic in (True, False):
        added = await alone.storage.codes.add("autumn", rows_of(new_codes(1)), ENTRY, atomic=atomic)
        assert added.refused_count == 1  # type: ignore[union-attr]
    detail = await alone.storage.coupons.coupon("autumn", claimants=0)
    assert detail is not None
    assert detail.coupon.amount == 5


async def test_two_uploads_of_the_same_codes_at_once_add_each_once(
    alone: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_additions, "ROWS_AT_ONCE", 50)
    await offer(alone, 0)
    rows = new_codes(500)
    added = await asyncio.gather(add(alone, rows, atomic=False), add(alone, rows[::-1], atomic=False))
    assert sum(each.added for each in added) == 500
    assert sum(each.refused_count for each in added) == 500
    assert await stock(alone) == (500, 500)


async def test_codes_are_given_in_the_order_of_their_file(alone: Instance) -> None:
    await offer(alone, 0)
    await add(alone, [NewCode(1, "zebra"), NewCode(2, "ape"), NewCode(3, "mule")])
    assert [(await claimed(alone, user)).code for user in "abc"] == ["zebra", "ape", "mule"]


async def test_codes_that_exist_are_replaced_when_codes_are_made(
    alone: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    await offer(alone, 3)
    made = iter([["C-1", "C-2", "fresh"], ["C-3"], ["one"], ["fresh"], ["two"]])
    monkeypatch.setattr(code_generation, "make_codes", lambda pattern, count: next(made))
    assert await alone.storage.codes.generate("spring", 3, "AAAA-9999", None, ENTRY) == CodesAdded(3)
    assert await stock(alone) == (6, 6)
    for code in ("fresh", "one", "two"):
        assert await alone.storage.codes.code(code) is not None


async def test_codes_that_would_be_over_are_not_made(alone: Instance) -> None:
    await offer(alone, 0)
    past = datetime.now(UTC) - timedelta(hours=1)
    assert await alone.storage.codes.generate("spring", 3, "AAAA-9999", past, ENTRY) == CodeExpired()
    [made] = await entries_about(alone.storage, "coupon", "spring", limit=10)
    assert made.action == "coupon.create"


async def test_adding_codes_is_audited_once_with_how_many(alone: Instance) -> None:
    await offer(alone, 3)
    entry, made = await entries_about(alone.storage, "coupon", "spring", limit=10)
    assert made.action == "coupon.create"
    assert (entry.action, entry.details) == ("codes.add", {"codes": 3})
