"""Holds that are over: their units come back once, whoever else is at the coupon in that moment."""

import asyncio
import re
from collections.abc import AsyncIterator

import psycopg
import pytest

from claimsvc.domain import Attempt, Claimed, ClaimOptions, HoldContinued, HoldExpired, SoldOut, StrategyName
from claimsvc.postgres import Repositories
from claimsvc.postgres.maintenance import _DUE_COUPONS, PostgresMaintenance
from tests.support.databases import administrate
from tests.support.storage import attempts, broken_sums, create_coupon, open_maintenance, open_storage, remaining

_ROUNDS = 25


@pytest.fixture
async def maintenance(database_url: str) -> AsyncIterator[PostgresMaintenance]:
    async with open_maintenance(database_url) as opened:
        yield opened


def held(*user_ids: str, on: str = "spring") -> list[Attempt]:
    return [
        Attempt(each.claim_id, on, each.user_id, ClaimOptions(hold_seconds=3600)) for each in attempts(*user_ids, on=on)
    ]


def hold_until(database_url: str, when: str) -> None:
    administrate(
        database_url, f"UPDATE user_claims SET held_until = {when} WHERE held_until IS NOT NULL AND state = 'active'"
    )


def is_plain(database_url: str) -> bool:
    [(plain_until,)] = administrate(database_url, "SELECT plain_until FROM coupons")
    return plain_until is None


async def test_units_of_holds_that_are_over_come_back_once_and_the_coupon_is_plain_again(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    await storage.admission.admit([*held("ada", "ben"), *attempts("cleo")])
    assert await maintenance.settle_holds("spring", limit=100) == 0
    assert (await remaining(storage), is_plain(database_url)) == (2, False)
    hold_until(database_url, "now()")
    assert sum(await asyncio.gather(*(maintenance.settle_holds("spring", limit=100) for _ in range(4)))) == 2
    assert (await remaining(storage), is_plain(database_url)) == (4, True)
    assert administrate(database_url, "SELECT user_id FROM user_claims WHERE state = 'expired' ORDER BY 1") == [
        ("ada",),
        ("ben",),
    ]


async def test_however_many_holds_are_over_a_claim_ends_few_of_them_and_its_user_s_own(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 2000, StrategyName.REDLOCK)
    administrate(
        database_url,
        """
        INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, held_until)
        SELECT gen_random_uuid(), 'spring', 'u' || i, 'active', now(), now() - make_interval(secs => 2001 - i)
        FROM generate_series(1, 2000) AS i;
        UPDATE coupons SET remaining_amount = 0, plain_until = 'epoch'
        """,
    )
    of_user = "SELECT id::text FROM user_claims WHERE state = 'active' AND user_id = "
    [(late,)] = administrate(database_url, of_user + "'u1999'")
    assert [type(each) for each in await storage.admission.admit(attempts("u2000", "stranger"))] == [Claimed, Claimed]
    # A thousand, and that of u2000; then u1999 confirms too late.
    assert administrate(database_url, "SELECT remaining_amount FROM coupons") == [(1001 - 2,)]
    assert isinstance(await storage.claims.confirm(str(late)), HoldExpired)
    assert administrate(database_url, "SELECT remaining_amount FROM coupons") == [(1002 - 2,)]
    assert broken_sums(database_url) == []


async def test_more_holds_than_one_transaction_may_end_come_back_oldest_first(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 9, StrategyName.REDLOCK)
    await storage.admission.admit([*held("ada", "ben", "cleo", "dora", "eve"), *attempts("finn")])
    ages = {"ada": 1, "ben": 5, "cleo": 4, "dora": 3}
    for user, age in ages.items():
        administrate(
            database_url, f"UPDATE user_claims SET held_until = now() - interval '{age} h' WHERE user_id = '{user}'"
        )
    assert await maintenance.settle_holds("spring", limit=3) == 3
    assert administrate(database_url, "SELECT user_id FROM user_claims WHERE state = 'active' ORDER BY 1") == [
        ("ada",),
        ("eve",),
        ("finn",),
    ]
    assert broken_sums(database_url) == []
    assert [await maintenance.settle_holds("spring", limit=3) for _ in range(2)] == [1, 0]
    assert (await remaining(storage), is_plain(database_url)) == (7, False)


async def test_a_coupon_is_not_plain_while_somebody_still_holds_a_unit(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    await storage.admission.admit(held("ada", "ben"))
    administrate(database_url, "UPDATE user_claims SET held_until = now() WHERE user_id = 'ada'")
    assert await maintenance.settle_holds("spring", limit=100) == 1
    assert (await remaining(storage), is_plain(database_url)) == (4, False)


async def test_coupons_are_found_by_the_holds_that_are_over_page_by_page_in_their_order(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    names = [f"coupon-{i}" for i in range(6)]
    for name in names:
        await create_coupon(storage, name, 5, StrategyName.REDLOCK)
        await storage.admission.admit([*held("ada", "ben", on=name), *attempts("cleo", on=name)])
    administrate(
        database_url,
        "UPDATE user_claims SET held_until = now() WHERE user_id = 'ada' AND coupon_name NOT IN ('coupon-1')",
    )
    assert await maintenance.coupons_with_due_holds(after="", limit=3) == ["coupon-0", "coupon-2", "coupon-3"]
    assert await maintenance.coupons_with_due_holds(after="coupon-3", limit=3) == ["coupon-4", "coupon-5"]
    assert await maintenance.coupons_with_due_holds(after="coupon-5", limit=3) == []


@pytest.mark.parametrize("rows", [0, 20_000])
def test_claims_that_nobody_holds_are_not_looked_at(database_url: str, rows: int) -> None:
    """The plan is made once, and kept, whatever the table held then."""
    numbers = {"after": "$1", "most": "$2"}
    statement = re.sub(r"%\((\w+)\)s", lambda name: numbers[name[1]], _DUE_COUPONS)
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 100000, 80000)")
        connection.execute(
            "INSERT INTO user_claims SELECT gen_random_uuid(), 'spring', 'u' || i, 'active', now() "
            "FROM generate_series(1, %s) AS i",
            [rows],
        )
        connection.execute("ANALYZE" if rows else "SELECT 1")
        connection.execute(f"PREPARE due (text, bigint) AS {statement}".encode())
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN EXECUTE due ('', 100)"))
    assert set(re.findall(r"using (\w+) on user_claims", plan)) == {"user_claims_held_idx"}, plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan


async def test_a_hold_that_ends_in_the_moment_of_its_confirmation_is_either_confirmed_or_another_s(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    """The last unit: its holder confirms, another claims, and sweepers give it back, all at once."""
    async with open_storage(database_url) as (elsewhere, _):
        await create_coupon(storage, "spring", _ROUNDS, StrategyName.REDLOCK)
        administrate(database_url, "UPDATE coupons SET amount = 0, remaining_amount = 0")
        for number in range(_ROUNDS):
            administrate(database_url, "UPDATE coupons SET amount = amount + 1, remaining_amount = 1")
            [first] = await storage.admission.admit(held(f"holder-{number}"))
            assert isinstance(first, Claimed)
            hold_until(database_url, f"clock_timestamp() + interval '{number % 5} ms'")
            _, [confirmed], [claimed], _ = await asyncio.gather(
                maintenance.settle_holds("spring", limit=100),
                storage.admission.admit(attempts(f"holder-{number}")),
                elsewhere.admission.admit(attempts(f"other-{number}")),
                maintenance.settle_holds("spring", limit=100),
            )
            assert broken_sums(database_url) == []
            winners = [each for each in (confirmed, claimed) if isinstance(each, Claimed | HoldContinued)]
            assert len(winners) == 1, (confirmed, claimed)
            assert isinstance(confirmed, SoldOut) or isinstance(claimed, SoldOut)
            [(rows,)] = administrate(
                database_url,
                f"SELECT array_agg(id::text) FROM user_claims WHERE state = 'active' "
                f"AND held_until IS NULL AND user_id IN ('holder-{number}', 'other-{number}')",
            )
            assert rows == [winners[0].claim.id]
    assert await remaining(storage) == 0
