"""Lists of who may claim: loaded beside the coupon, in force in one moment, and cleared away when they are not."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

import psycopg
import pytest

from claimsvc.domain import (
    AuditEntry,
    ClaimOptions,
    CouponDetail,
    Eligibility,
    ListKind,
    ListReplaced,
    Reason,
    ReasonCode,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming.eligibility import HELD_OF_OTHERS, LISTED
from tests.support.databases import administrate
from tests.support.storage import attempts, create_coupon, entries_about, kinds, open_storage_through_a_proxy
from tests.support.waiting import until

ENTRY = AuditEntry("test", "allow-list.replace", "coupon", "spring")
ALLOW, DENY = ListKind.ALLOW, ListKind.DENY


async def pieces(*users: str) -> AsyncIterator[Sequence[str]]:
    for start in range(0, len(users), 1000):
        yield users[start : start + 1000]


@pytest.fixture(autouse=True)
async def spring(storage: Repositories) -> None:
    await create_coupon(storage, "spring", 1000, StrategyName.REDLOCK)


def stored(database_url: str) -> list[tuple[object, ...]]:
    """How many users there are of each list's versions, complete or not."""
    return administrate(
        database_url,
        "SELECT kind, v.users, count(user_id) FROM eligibility_versions AS v LEFT JOIN eligibility_lists "
        "USING (coupon_name, kind, version) GROUP BY kind, version, v.users ORDER BY kind, version",
    )


async def test_a_list_that_is_replaced_is_cleared_away(storage: Repositories, database_url: str) -> None:
    users = [f"user-{n}" for n in range(7000)]
    replace = storage.audience.replace_list
    assert await replace("spring", ALLOW, pieces(*users, *users), ENTRY) == ListReplaced("spring", ALLOW, 7000)
    assert await replace("spring", DENY, pieces("eve"), ENTRY) == ListReplaced("spring", DENY, 1)
    assert await replace("spring", ALLOW, pieces("ada", "eve"), ENTRY) == ListReplaced("spring", ALLOW, 2)
    assert stored(database_url) == [("allow", 2, 2), ("deny", 1, 1)]
    assert kinds(await storage.admission.admit(attempts("ada", "eve", "user-1"))) == [
        "Claimed",
        "NotEligible",
        "NotEligible",
    ]
    assert await storage.audience.remove_list("spring", ALLOW, ENTRY) == ListReplaced("spring", ALLOW, None)
    assert await storage.audience.remove_list("spring", ALLOW, ENTRY) == ListReplaced("spring", ALLOW, None)
    assert stored(database_url) == [("deny", 1, 1)]
    details = [entry.details for entry in (await entries_about(storage, "coupon", "spring", limit=10))[:-1]]
    assert details == [{}, {"users": 2}, {"users": 1}, {"users": 7000}]


async def test_a_coupon_with_a_list_is_not_plain_and_is_again_without(storage: Repositories, database_url: str) -> None:
    def is_plain() -> bool:
        return administrate(database_url, "SELECT plain_until IS NULL FROM coupons") == [(True,)]

    for kind in ListKind:
        await storage.audience.replace_list("spring", kind, pieces("ada"), ENTRY)
        assert not is_plain()
        detail = await storage.coupons.coupon("spring", claimants=0)
        assert isinstance(detail, CouponDetail)
        assert (detail.campaign.has_allow_list, detail.campaign.has_deny_list) == (kind is ALLOW, kind is DENY)
        # What changes a coupon otherwise leaves its lists alone.
        await storage.campaigns.change("spring", {"amount": 2000}, ENTRY)
        assert not is_plain()
        await storage.audience.remove_list("spring", kind, ENTRY)
        assert is_plain()


async def test_what_breaks_off_leaves_the_list_as_it_was(storage: Repositories, database_url: str) -> None:
    await storage.audience.replace_list("spring", ALLOW, pieces("ada"), ENTRY)

    async def breaking() -> AsyncIterator[Sequence[str]]:
        yield [f"user-{n}" for n in range(3000)]
        raise RuntimeError("it broke off")

    with pytest.raises(RuntimeError, match="it broke off"):
        await storage.audience.replace_list("spring", ALLOW, breaking(), ENTRY)
    assert stored(database_url) == [("allow", 1, 1)]
    eligibility = storage.audience.eligibility
    assert await eligibility("spring", "ada", ClaimOptions()) == Eligibility(())
    assert await eligibility("spring", "user-1", ClaimOptions()) == Eligibility((Reason(ReasonCode.NOT_LISTED),))


async def test_a_load_that_is_cancelled_leaves_nothing(storage: Repositories, database_url: str) -> None:
    async def endless() -> AsyncIterator[Sequence[str]]:
        yield [f"user-{n}" for n in range(3000)]
        loaded.set()
        await asyncio.Event().wait()

    loaded = asyncio.Event()
    load = asyncio.create_task(storage.audience.replace_list("spring", ALLOW, endless(), ENTRY))
    await asyncio.wait_for(loaded.wait(), 10)
    assert stored(database_url) == [("allow", None, 3000)]
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert stored(database_url) == []


async def test_of_two_loads_at_once_the_one_that_was_begun_last_is_in_force(
    storage: Repositories, database_url: str
) -> None:
    async def slow() -> AsyncIterator[Sequence[str]]:
        yield [f"slow-{n}" for n in range(2000)]
        begun.set()
        await goes_on.wait()
        yield ["slow"]

    begun, goes_on = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(storage.audience.replace_list("spring", ALLOW, slow(), ENTRY))
    await asyncio.wait_for(begun.wait(), 10)
    await storage.audience.replace_list("spring", ALLOW, pieces("quick"), ENTRY)
    goes_on.set()
    assert await first == ListReplaced("spring", ALLOW, 2001)
    assert stored(database_url) == [("allow", 1, 1)]
    assert kinds(await storage.admission.admit(attempts("slow", "quick"))) == ["NotEligible", "Claimed"]


async def test_no_list_is_kept_of_a_coupon_that_is_not_there_or_goes_away(
    storage: Repositories, database_url: str
) -> None:
    audience = storage.audience
    assert await audience.replace_list("winter", ALLOW, pieces("ada"), ENTRY) == UnknownCoupon()
    assert await audience.remove_list("winter", ALLOW, ENTRY) == UnknownCoupon()

    async def purging() -> AsyncIterator[Sequence[str]]:
        yield [f"user-{n}" for n in range(3000)]
        administrate(database_url, "DELETE FROM coupons")
        yield ["ada"]

    assert await audience.replace_list("spring", ALLOW, purging(), ENTRY) == UnknownCoupon()
    assert stored(database_url) == []


async def test_loading_waits_for_nobody_who_has_the_coupon_and_keeps_nobody_waiting(
    storage: Repositories, database_url: str
) -> None:
    """All but its end, while another transaction holds the coupon's row as claims do."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as claiming:
        claiming.execute("SELECT FROM coupons WHERE name = 'spring' FOR NO KEY UPDATE")
        claiming.execute("UPDATE coupons SET remaining_amount = remaining_amount - 1, amount = amount - 1")
        users = [f"user-{n}" for n in range(5000)]
        load = asyncio.create_task(storage.audience.replace_list("spring", ALLOW, pieces(*users), ENTRY))
        await until(lambda: stored(database_url) == [("allow", None, 5000)], "all users are loaded")
        assert not load.done()
        claiming.commit()
    assert await load == ListReplaced("spring", ALLOW, 5000)


async def test_a_list_whose_end_was_lost_sight_of_is_in_force_once(storage: Repositories, database_url: str) -> None:
    async with open_storage_through_a_proxy(database_url) as (through, _, proxy):
        cut = asyncio.Event()

        async def users() -> AsyncIterator[Sequence[str]]:
            yield [f"user-{n}" for n in range(3000)]
            yield ["ada"]
            # The next thing that is asked is how many there are, and then the transaction at its end.
            proxy.cut_after(b"COMMIT", cut.set)

        replaced = await through.audience.replace_list("spring", ALLOW, users(), ENTRY)
    assert cut.is_set()
    assert replaced == ListReplaced("spring", ALLOW, 3001)
    assert stored(database_url) == [("allow", 3001, 3001)]
    assert len(await entries_about(storage, "coupon", "spring", limit=10)) == 2  # with that of the offer


def test_who_is_listed_and_what_they_hold_is_found_by_look_ups(database_url: str) -> None:
    """A plan that reads the whole list is quick while that is short."""
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        plans = {}
        for name, statement in (("listed", LISTED), ("held", HELD_OF_OTHERS)):
            numbered = re.sub(r"%\((\w+)\)s", lambda found: {"names": "$1", "user_ids": "$2"}[found[1]], statement)
            connection.execute(f"PREPARE {name} (text[], text[]) AS {numbered}".encode())
            rows = connection.execute(f"EXPLAIN EXECUTE {name} ('{{}}', '{{}}')".encode())
            plans[name] = "\n".join(row[0] for row in rows)
    assert re.search(
        r"Scan using eligibility_lists_pkey.*\n.*Index Cond: .*coupon_name = .*kind = .*version = .*user_id = ",
        plans["listed"],
    ), plans["listed"]
    assert re.search(
        r"Scan using user_claims_one_active_per_slot.*\n.*Index Cond: .*coupon_name = .*user_id = ", plans["held"]
    ), plans["held"]
