"""Forgetting a user: nothing in the whole schema names it afterwards, and every count is as it was."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import psycopg
import pytest

from claimsvc.domain import (
    Attempt,
    AuditEntry,
    Campaign,
    Claimed,
    ClaimOptions,
    IdempotencyKey,
    NewCode,
    Queued,
    StrategyName,
)
from claimsvc.ports import FailedTry
from claimsvc.postgres import Repositories, erasure
from tests.support.databases import administrate
from tests.support.program import claimsvc_here
from tests.support.storage import attempts, broken_sums, create_coupon, entries_about, kinds
from tests.support.tickets import QUICK, broken_queues, claim, create_queued, joined, started, state, wish

# Long enough to be found in whatever text there is, and hostile to whatever is made of it.
USER = "ada'--the\\forgotten%_1"
ACTOR = "key:of-support"


def once(key: str, caller: str = "anybody") -> IdempotencyKey:
    return IdempotencyKey(caller, key, hashlib.sha256(key.encode()).digest(), f"request-{key}")


def wishes(user_id: str, on: str, options: ClaimOptions | None = None) -> list[Attempt]:
    return [replace(attempt, options=options) for attempt in attempts(user_id, on=on)]


async def claimed(storage: Repositories, user_id: str, on: str, options: ClaimOptions | None = None) -> str:
    [outcome] = await storage.admission.admit(wishes(user_id, on, options))
    assert isinstance(outcome, Claimed)
    return outcome.claim.id


def places_that_name(database_url: str, text: str) -> dict[str, int]:
    """Every table of the schema that has a row with this text anywhere in it, and how many."""
    tables = administrate(
        database_url, "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'"
    )
    assert len(tables) >= 9
    needles = {"'" + each.replace("'", "''") + "'" for each in (text, json.dumps(text)[1:-1])}
    found = {}
    for (table,) in tables:
        anywhere = " OR ".join(f"strpos(to_jsonb(row_of)::text, {needle}) > 0" for needle in needles)
        [(count,)] = administrate(database_url, f"SELECT count(*) FROM {table} AS row_of WHERE {anywhere}")
        if count:
            assert isinstance(count, int)
            found[str(table)] = count
    return found


async def a_life_of(storage: Repositories, database_url: str, user_id: str) -> None:
    """Claims in every state, in several slots, under keys; and on lists, in force and not."""
    names = ("spring", "summer", "autumn", "winter", "empty")
    for name in names:
        campaign = Campaign(per_user_limit=3) if name == "summer" else Campaign()
        await create_coupon(storage, name, 9, StrategyName.REDLOCK, campaign)
    for name in names[:4]:
        await claimed(storage, "ben", name)
    await claimed(storage, user_id, "spring")
    await claimed(storage, user_id, "summer")
    await claimed(storage, user_id, "summer", ClaimOptions(hold_seconds=60))
    cancelled = await claimed(storage, user_id, "autumn", ClaimOptions(idempotency_key=once("one")))
    await storage.claims.cancel(cancelled, AuditEntry("claimant", "claim.cancel", "claim", cancelled))
    await claimed(
        storage, user_id, "autumn", ClaimOptions(hold_seconds=60, idempotency_key=once("two", f"user:{user_id}"))
    )
    await storage.admission.admit(
        wishes(user_id, "empty", ClaimOptions(idempotency_key=once("three", f"user:{user_id}")))
    )
    await storage.admission.admit(wishes("ben", "spring", ClaimOptions(idempotency_key=once("of ben"))))
    quoted = user_id.replace("'", "''")
    administrate(
        database_url,
        f"""
        INSERT INTO eligibility_versions (coupon_name, kind) VALUES
            ('winter', 'allow'), ('winter', 'allow'), ('winter', 'deny'), ('winter', 'deny');
        INSERT INTO eligibility_lists (coupon_name, kind, version, user_id)
            SELECT 'winter', kind, version, listed FROM eligibility_versions,
            unnest(ARRAY['a', '{quoted}', 'z']) AS listed
        """,
    )


@pytest.mark.parametrize("page", [2, 500], ids=["by-twos", "at-once"])
async def test_nothing_names_a_user_that_was_forgotten_and_all_counts_are_as_they_were(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(erasure, "_PAGE_COUPONS", page)
    monkeypatch.setattr(erasure, "_PAGE_ANSWERS", page)
    await a_life_of(storage, database_url, USER)
    assert places_that_name(database_url, USER) == {
        "public.user_claims": 6,
        "public.idempotent_answers": 3,
        "public.eligibility_lists": 4,
    }
    counts = "SELECT name, amount, remaining_amount, plain_until FROM coupons ORDER BY name"
    claims = "SELECT id, coupon_name, state, slot, claimed_at, held_until, ended_at FROM user_claims ORDER BY id"
    before = [administrate(database_url, each) for each in (counts, claims)]

    erased = await storage.erasure.erase(USER, actor=ACTOR, request_id="mine")
    assert (erased.coupons, erased.claims, erased.list_entries, erased.answers) == (5, 6, 4, 3)
    assert places_that_name(database_url, USER) == {}
    assert [administrate(database_url, each) for each in (counts, claims)] == before
    assert broken_sums(database_url) == []
    users = administrate(database_url, "SELECT user_id, count(*) FROM user_claims GROUP BY 1 ORDER BY 1")
    assert users == [("ben", 4), (erased.erased_as, 6)]
    assert administrate(database_url, "SELECT key FROM idempotent_answers") == [("of ben",)]
    assert administrate(database_url, "SELECT DISTINCT user_id FROM eligibility_lists ORDER BY 1") == [("a",), ("z",)]

    [whole] = await entries_about(storage, "user", erased.erased_as, limit=9)
    assert (whole.actor, whole.action, whole.request_id) == (ACTOR, "user.erase", "mine")
    assert whole.details == {"coupons": 5, "claims": 6, "list_entries": 4, "answers": 3, "tickets": 0}
    of_summer = (await entries_about(storage, "coupon", "summer", limit=9))[0]
    assert of_summer.details == {"erased_as": erased.erased_as, "claims": 2, "list_entries": 0}

    again = await storage.erasure.erase(USER, actor=ACTOR)
    assert (again.coupons, again.claims, again.list_entries, again.answers) == (0, 0, 0, 0)
    assert len(await entries_about(storage, "coupon", "summer", limit=9)) == 2
    await claimed(storage, USER, "spring")
    assert kinds(await storage.admission.admit(wishes(USER, "spring"))) == ["AlreadyClaimed"]


@pytest.mark.parametrize("page", [1, 5_000], ids=["by-ones", "at-once"])
async def test_tickets_of_a_forgotten_user_leave_or_stay_as_they_ended_without_the_name(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(erasure, "_PAGE_TICKETS", page)
    one_at_once = replace(QUICK, concurrency=1)
    for name in ("claimed", "refused", "waiting", "started", "dead"):
        await create_queued(storage, 5, one_at_once, name)
        await joined(storage, "ben", on=name)
        for ticket in await started(storage):
            await claim(storage, ticket)
    await storage.tickets.pause("waiting", AuditEntry(ACTOR, "queue.pause", "coupon", "waiting"), paused=True)
    options = ClaimOptions(attributes={"name": USER}, token={"sub": USER})
    tickets = {}
    for name in ("claimed", "refused", "waiting", "started", "dead"):
        [queued] = await storage.tickets.join(name, [wish(USER, options)])
        assert isinstance(queued, Queued)
        tickets[name] = queued.ticket
        if name == "refused":
            administrate(database_url, "UPDATE coupons SET amount = 1, remaining_amount = 0 WHERE name = 'refused'")
        if name == "waiting":
            continue
        [ticket] = await started(storage, name)
        if name in ("claimed", "refused"):
            await claim(storage, ticket)
        elif name == "dead":
            await storage.tickets.put_back([FailedTry(ticket, None)])
        else:
            under_way = ticket
    await joined(storage, "eve", on="waiting")
    assert places_that_name(database_url, USER)["public.tickets"] == 5

    erased = await storage.erasure.erase(USER, actor=ACTOR)
    assert erased.tickets == 5
    assert places_that_name(database_url, USER) == {}
    ends = {name: await state(storage, ticket) for name, ticket in tickets.items()}
    assert ends == {"claimed": "claimed", "refused": "refused", "waiting": "left", "started": "left", "dead": "left"}
    assert administrate(
        database_url, "SELECT user_id, count(*) FROM tickets WHERE user_id <> 'ben' GROUP BY 1 ORDER BY 1"
    ) == [
        (erased.erased_as, 5),
        ("eve", 1),
    ]
    assert kinds([*await claim(storage, under_way)]) == ["LeaseLost"]
    assert broken_queues(database_url) == []
    [eve] = await joined(storage, "eve", on="waiting")
    assert eve.position == 1
    assert (await storage.erasure.erase(USER, actor=ACTOR)).tickets == 0


async def test_a_user_who_claims_meanwhile_is_forgotten_by_asking_again_and_no_unit_is_lost(
    storage: Repositories, database_url: str
) -> None:
    names = [f"c{number}" for number in range(6)]
    for name in names:
        await create_coupon(storage, name, 100, StrategyName.REDLOCK)

    async def claim_on() -> None:
        for _ in range(15):
            await storage.admission.admit([attempt for name in names for attempt in attempts(USER, "ben", on=name)])

    async def erase_on() -> None:
        for _ in range(5):
            await storage.erasure.erase(USER, actor=ACTOR)

    await asyncio.gather(claim_on(), erase_on())
    assert broken_sums(database_url) == []
    await storage.erasure.erase(USER, actor=ACTOR)
    assert places_that_name(database_url, USER) == {}
    assert broken_sums(database_url) == []
    assert administrate(database_url, "SELECT count(*) FROM user_claims WHERE user_id = 'ben'") == [(len(names),)]


async def test_coupons_and_lists_that_do_not_name_the_user_are_not_read_through(
    storage: Repositories, database_url: str
) -> None:
    """Each is asked by its indexes, however many claims and entries it has."""
    administrate(
        database_url,
        """
        INSERT INTO coupons (name, amount, remaining_amount) VALUES ('huge', 200000, 100000);
        INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at)
            SELECT gen_random_uuid(), 'huge', 'u' || n, 'active', now() FROM generate_series(1, 20000) AS n;
        INSERT INTO eligibility_versions (coupon_name, kind) VALUES ('huge', 'allow');
        INSERT INTO eligibility_lists
            SELECT 'huge', 'allow', version, 'u' || n FROM eligibility_versions, generate_series(1, 20000) AS n;
        """,
    )
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        for statement, values in (
            (erasure._PAGE, {"after": "''", "most": "500", "user_id": "'ada'"}),
            (erasure._ERASE, {"coupon_name": "'huge'", "user_id": "'ada'", "erased_as": "'x'", "actor": "'y'"}),
        ):
            explained = "EXPLAIN (COSTS off) " + statement % {"request_id": "NULL", **values}
            plan = "\n".join(row[0] for row in connection.execute(explained.encode()))
            assert "Seq Scan" not in plan
            for index in ("user_claims_one_active_per_slot", "user_claims_ended_idx"):
                look_up = rf"{index}.*\n +Index Cond: .*coupon_name = .*user_id = 'ada'"
                assert re.search(look_up, plan), plan
            look_up = r"eligibility_lists_pkey.*\n +Index Cond: .*kind = .*version = .*user_id = 'ada'"
            assert re.search(look_up, plan), plan


async def test_the_command_forgets_a_user_only_when_told_twice(storage: Repositories, database_url: str) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    await claimed(storage, "ada", "spring")
    variables = {"CLAIMSVC_DATABASE_URL": database_url}
    refused = claimsvc_here("user", "erase", "ada", **variables)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert claimsvc_here("user", "erase", "a b", "--yes", **variables).returncode == 2
    assert places_that_name(database_url, "ada")
    told = claimsvc_here("user", "erase", "ada", "--yes", "--json", **variables)
    assert (told.returncode, told.stderr) == (0, "")
    assert (json.loads(told.stdout)["claims"], places_that_name(database_url, "ada")) == (1, {})


async def test_answers_to_redemptions_name_the_user_no_more(storage: Repositories, database_url: str) -> None:
    async def rows() -> AsyncIterator[Sequence[NewCode]]:
        yield [NewCode(1, "C-1"), NewCode(2, "C-2")]

    entry = AuditEntry("test", "code.redeem", "code", "C-1")
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    await storage.codes.add("spring", rows(), entry, atomic=True, uses=2)
    claim_id = await claimed(storage, USER, "spring")
    await claimed(storage, "ben", "spring")
    await storage.codes.redeem("C-1", entry, once("by code"))
    await storage.codes.redeem_claim(claim_id, entry, once("by id"))
    await storage.codes.unredeem("C-1", entry, once("back"))
    await storage.codes.unredeem_claim(claim_id, entry, once("back by id"))
    await storage.codes.redeem("C-2", entry, once("of ben"))
    assert places_that_name(database_url, USER)["public.idempotent_answers"] == 4
    erased = await storage.erasure.erase(USER, actor=ACTOR)
    assert erased.answers == 4
    assert places_that_name(database_url, USER) == {}
    found = await storage.codes.code("C-1")
    assert found is not None
    assert found.user_id == erased.erased_as
