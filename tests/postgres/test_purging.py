"""What nobody asks for any more goes, and nothing else; the sums are right in every snapshot meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import psycopg
import pytest

from claimsvc.domain import Ended, PurgeReport, StrategyName, UnknownCoupon
from claimsvc.ports import FailedTry
from claimsvc.postgres import Repositories
from claimsvc.postgres.maintenance import PostgresMaintenance
from tests.support.databases import administrate
from tests.support.storage import (
    attempts,
    broken_sums,
    create_coupon,
    entries_about,
    kinds,
    open_maintenance,
    open_storage,
)
from tests.support.tickets import QUICK, broken_queues, claim, create_queued, joined, started

_KEPT = "INSERT INTO idempotent_answers (caller, key, fingerprint, answer, request_id, kept_at) VALUES "


@pytest.fixture
async def maintenance(database_url: str) -> AsyncIterator[PostgresMaintenance]:
    async with open_maintenance(database_url) as opened:
        yield opened


def end(database_url: str, name: str = "spring", days_ago: int = 10) -> None:
    administrate(
        database_url,
        "WITH over AS (INSERT INTO campaigns (coupon_name, ends_at)"
        f" VALUES ('{name}', now() - interval '{days_ago} days')"
        " ON CONFLICT (coupon_name) DO UPDATE SET ends_at = excluded.ends_at RETURNING ends_at)"
        f" UPDATE coupons SET plain_until = over.ends_at FROM over WHERE name = '{name}'",
    )


def count(database_url: str, *tables: str) -> list[object]:
    return [administrate(database_url, f"SELECT count(*) FROM {table}")[0][0] for table in tables]


def give_codes(database_url: str) -> None:
    """A code to each claim of `spring`; and to its stock, besides one that was voided."""
    administrate(
        database_url,
        """
        WITH made AS (
            INSERT INTO codes (coupon_name, code, claim_id, voided_at)
            SELECT 'spring', 'given-' || id, id, NULL::timestamptz FROM user_claims WHERE coupon_name = 'spring'
            UNION ALL
            SELECT 'spring', 'free-' || i, NULL::uuid, NULL
            FROM coupons, generate_series(1, remaining_amount) AS i WHERE name = 'spring'
            UNION ALL SELECT 'spring', 'voided', NULL, now()
            RETURNING code, coupon_name
        ) INSERT INTO code_names SELECT * FROM made
        """,
    )


async def purge_all(maintenance: PostgresMaintenance, name: str = "spring", limit: int = 7) -> PurgeReport:
    report = PurgeReport()
    while (purged := await maintenance.purge_coupon(name, for_days=9, limit=limit, actor="job:purge")).rows:
        report.add(purged)
    return report


async def test_a_coupon_that_is_made_anew_inherits_nothing_that_was_remembered_by_its_name(
    maintenance: PostgresMaintenance, database_url: str
) -> None:
    """It was sold out, or its claims needed the full path, in the instance that now claims again."""
    async with open_storage(database_url) as (storage, _):
        for amount in (1, 2):
            await create_coupon(storage, "spring", amount, StrategyName.ROW_LOCK)
            users = [f"user-{number}" for number in range(amount + 1)]
            assert kinds(await storage.admission.admit(attempts(*users))) == ["Claimed"] * amount + ["SoldOut"]
            assert kinds(await storage.admission.admit(attempts("last"))) == ["SoldOut"]
            end(database_url)
            assert (await purge_all(maintenance)).coupons == 1
            assert kinds(await storage.admission.admit(attempts("last"))) == ["UnknownCoupon"]


async def test_answers_are_removed_once_they_are_not_given_again(
    maintenance: PostgresMaintenance, database_url: str
) -> None:
    for number, age in enumerate(["24 hours 1 minute", "25 hours", "3 days", "23 hours 59 minutes", "0 hours"]):
        administrate(database_url, f"{_KEPT} ('open', 'key-{number}', '', '{{}}', 'r', now() - interval '{age}')")
    assert (await maintenance.count_purgeable()).answers == 3
    assert [await maintenance.purge_answers(limit=2) for _ in range(3)] == [2, 1, 0]
    assert administrate(database_url, "SELECT key FROM idempotent_answers ORDER BY 1") == [("key-3",), ("key-4",)]


async def test_an_answer_that_is_just_kept_anew_stays_and_is_not_waited_for(
    maintenance: PostgresMaintenance, database_url: str
) -> None:
    administrate(database_url, f"{_KEPT} ('open', 'key', '', '{{}}', 'first', now() - interval '2 days')")
    async with await psycopg.AsyncConnection.connect(database_url.replace("+psycopg", "")) as another:
        await another.execute("UPDATE idempotent_answers SET request_id = 'second', kept_at = clock_timestamp()")
        # Waiting for it would end with an error, by the time-out of a lock.
        assert await maintenance.purge_answers(limit=10) == 0
        await another.commit()
    assert await maintenance.purge_answers(limit=10) == 0
    assert administrate(database_url, "SELECT request_id FROM idempotent_answers") == [("second",)]


async def test_versions_of_a_list_that_were_replaced_go_and_those_on_their_way_stay(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    for name in ("autumn", "spring"):
        await create_coupon(storage, name, 5, StrategyName.REDLOCK)
        administrate(
            database_url,
            f"""
            INSERT INTO campaigns (coupon_name, allow_version) VALUES ('{name}', 2);
            INSERT INTO eligibility_versions (coupon_name, kind, version, users, begun_at) OVERRIDING SYSTEM VALUE
            VALUES
                ('{name}', 'allow', 1, 5, now()), ('{name}', 'allow', 2, 5, now()), ('{name}', 'allow', 3, NULL, now()),
                ('{name}', 'deny', 1, NULL, now() - interval '25 hours'), ('{name}', 'deny', 2, NULL, now());
            INSERT INTO eligibility_lists
                SELECT coupon_name, kind, version, 'u' || i FROM eligibility_versions, generate_series(1, 5) AS i
                WHERE coupon_name = '{name}'
            """,
        )
    assert (await maintenance.count_purgeable()).list_entries == 20
    assert [await maintenance.purge_lists(limit=7) for _ in range(4)] == [7, 7, 6, 0]
    for table in ("eligibility_lists", "eligibility_versions"):
        left = f"SELECT DISTINCT kind, version FROM {table} WHERE coupon_name = 'spring' ORDER BY 1, 2"
        assert administrate(database_url, left) == [("allow", 2), ("allow", 3), ("deny", 2)], table


async def test_a_coupon_goes_with_its_claims_and_codes_and_the_audit_tells_of_all_of_it(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 30, StrategyName.REDLOCK)
    await create_coupon(storage, "autumn", 30, StrategyName.REDLOCK)
    for name in ("spring", "autumn"):
        await storage.admission.admit(attempts(*(f"u{i}" for i in range(20)), on=name))
    administrate(database_url, "UPDATE user_claims SET state = 'cancelled', ended_at = now() WHERE user_id = 'u3'")
    administrate(database_url, "UPDATE coupons SET remaining_amount = remaining_amount + 1")
    give_codes(database_url)
    administrate(
        database_url,
        "INSERT INTO eligibility_versions (coupon_name, kind) VALUES ('spring', 'deny')",
    )
    administrate(
        database_url,
        "INSERT INTO eligibility_lists SELECT 'spring', 'deny', version, 'x' || generate_series(1, 9)"
        " FROM eligibility_versions",
    )
    end(database_url)
    expected = PurgeReport(list_entries=9, coupons=1, claims=20, codes=32)
    assert await maintenance.ended_coupons(after="", limit=5, for_days=10) == ["spring"]
    assert await maintenance.count_coupon("spring") == expected
    assert await purge_all(maintenance) == expected
    assert count(database_url, "user_claims", "codes", "code_names", "campaigns", "eligibility_lists") == [
        20,
        0,
        0,
        0,
        0,
    ]
    assert administrate(database_url, "SELECT name, amount, remaining_amount FROM coupons") == [("autumn", 30, 11)]
    entries = [
        each for each in await entries_about(storage, "coupon", "spring", limit=100) if each.action != "coupon.create"
    ]
    assert {(entry.actor, entry.action) for entry in entries} == {("job:purge", "coupon.purge")}
    assert [entry.details["is_gone"] for entry in entries] == [True] + [False] * (len(entries) - 1)
    for kind, rows in (("claims", 20), ("codes", 32), ("list_entries", 9)):
        assert sum(entry.details[kind] for entry in entries) == rows


async def test_a_coupon_that_is_not_over_for_so_long_is_left_as_it_is(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 30, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("ada", "ben"))
    assert not (await purge_all(maintenance)).rows  # it has no campaign at all
    end(database_url, days_ago=8)
    assert await maintenance.ended_coupons(after="", limit=5, for_days=9) == []
    assert not (await purge_all(maintenance)).rows
    assert not (await purge_all(maintenance, "no-such-coupon")).rows
    assert count(database_url, "coupons", "user_claims", "audit") == [1, 2, 1]
    # What came first counts: the end, or that it was archived.
    administrate(database_url, "UPDATE campaigns SET archived_at = now() - interval '10 days'")
    assert await maintenance.ended_coupons(after="", limit=5, for_days=9) == ["spring"]


async def test_a_coupon_whose_end_is_put_off_keeps_what_it_still_has(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 30, StrategyName.REDLOCK)
    await storage.admission.admit(attempts(*(f"u{i}" for i in range(20))))
    end(database_url)
    assert (await maintenance.purge_coupon("spring", for_days=9, limit=7, actor="job:purge")).claims == 7
    administrate(database_url, "UPDATE campaigns SET ends_at = now() + interval '1 day'")
    assert not (await purge_all(maintenance)).rows
    assert administrate(database_url, "SELECT amount, remaining_amount FROM coupons") == [(23, 10)]
    assert broken_sums(database_url) == []


async def test_purging_under_load_by_several_keeps_the_sums_and_refuses_nobody_wrongly(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_coupon(storage, "spring", 400, StrategyName.REDLOCK)
    await create_coupon(storage, "summer", 400, StrategyName.REDLOCK)
    await storage.admission.admit(attempts(*(f"u{i}" for i in range(300))))
    give_codes(database_url)
    end(database_url)
    told: set[str] = set()
    done = asyncio.Event()

    async def claim_what_is_over() -> None:
        while not done.is_set():
            [outcome] = await storage.admission.admit(attempts("late"))
            assert isinstance(outcome, Ended | UnknownCoupon)
            told.add(type(outcome).__name__)

    async def claim_another() -> None:
        async with open_storage(database_url) as (elsewhere, _):
            for number in range(60):
                [outcome] = await elsewhere.admission.admit(attempts(f"u{number}", on="summer"))
                told.add(type(outcome).__name__)

    async def sample() -> None:
        while not done.is_set():
            assert await asyncio.to_thread(broken_sums, database_url) == []
            pools = await asyncio.to_thread(
                administrate,
                database_url,
                "SELECT remaining_amount = (SELECT count(*) FROM codes WHERE claim_id IS NULL AND voided_at IS NULL)"
                " FROM coupons WHERE name = 'spring'",
            )
            assert pools in ([(True,)], [])

    async def purge() -> PurgeReport:
        async with open_maintenance(database_url) as another:
            reports = await asyncio.gather(purge_all(maintenance, limit=20), purge_all(another, limit=20))
        done.set()
        reports[0].add(reports[1])
        return reports[0]

    async with asyncio.TaskGroup() as tasks:
        for work in (claim_what_is_over, claim_another, sample):
            tasks.create_task(work())
        purging = tasks.create_task(purge())
    assert purging.result() == PurgeReport(coupons=1, claims=300, codes=401)
    assert told >= {"Ended", "Claimed"}
    assert told <= {"Ended", "Claimed", "UnknownCoupon"}
    assert count(database_url, "codes", "code_names", "coupons") == [0, 0, 1]
    [after] = await storage.admission.admit(attempts("late"))
    assert isinstance(after, UnknownCoupon)


async def test_tickets_are_removed_a_day_after_their_end_and_dead_letters_are_kept(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_queued(storage, queue=replace(QUICK, rate_per_second=1))
    tickets = await joined(storage, *(f"user-{number}" for number in range(9)))
    for each in tickets[3:]:
        await storage.tickets.leave(each.id)
    ages = ["24 hours 1 minute", "25 hours", "9 days", "23 hours 59 minutes", "0 hours", "25 hours"]
    for each, age in zip(tickets[3:], ages, strict=True):
        administrate(database_url, f"UPDATE tickets SET ended_at = now() - interval '{age}' WHERE id = '{each.id}'")
    administrate(database_url, f"UPDATE tickets SET state = 'dead' WHERE id = '{tickets[8].id}'")
    administrate(database_url, f"UPDATE tickets SET joined_at = now() - interval '9 days' WHERE id = '{tickets[0].id}'")
    assert (await maintenance.count_purgeable()).tickets == 3
    assert [await maintenance.purge_tickets(limit=2) for _ in range(3)] == [2, 1, 0]
    kept = administrate(database_url, "SELECT user_id, state FROM tickets ORDER BY place")
    assert kept == [
        *((f"user-{number}", "waiting") for number in range(3)),
        *((f"user-{number}", "left") for number in (6, 7)),
        ("user-8", "dead"),
    ]
    assert broken_queues(database_url) == []
    assert [each.position for each in await joined(storage, "user-9")] == [4]


async def test_a_purged_coupon_ends_what_waits_for_it_and_dead_letters_chunk_by_chunk(
    storage: Repositories, maintenance: PostgresMaintenance, database_url: str
) -> None:
    await create_queued(storage, 300, replace(QUICK, concurrency=8))
    await create_queued(storage, name="autumn")
    await joined(storage, "ada", on="autumn")
    tickets = await joined(storage, *(f"user-{number}" for number in range(300)))
    begun = [each for each in await started(storage) if each.coupon_name == "spring"]
    await claim(storage, begun[0])
    await storage.tickets.put_back([FailedTry(each, None) for each in begun[1:4]])
    end(database_url)
    expected = PurgeReport(coupons=1, claims=1, unfinished_tickets=299)
    assert await maintenance.count_coupon("spring") == expected
    first = await maintenance.purge_coupon("spring", for_days=9, limit=7, actor="job:purge")
    assert (first.unfinished_tickets, first.coupons) == (10, 0)
    assert broken_queues(database_url) == []
    report = await purge_all(maintenance)
    report.add(first)
    assert report == expected
    assert administrate(database_url, "SELECT coupon_name FROM queues") == [("autumn",)]
    assert administrate(database_url, "SELECT DISTINCT coupon_name FROM ticket_blocks") == [("autumn",)]
    found = await storage.tickets.read([each.id for each in tickets])
    assert Counter(str(each.state) for each in found) == {"claimed": 1, "expired": 299}
    assert kinds([*await claim(storage, begun[5])]) == ["LeaseLost"]
    entries = await entries_about(storage, "coupon", "spring", limit=100)
    assert sum(entry.details.get("unfinished_tickets", 0) for entry in entries) == 299
    administrate(database_url, "UPDATE tickets SET ended_at = now() - interval '2 days' WHERE ended_at IS NOT NULL")
    assert await maintenance.purge_tickets(limit=1000) == 300
