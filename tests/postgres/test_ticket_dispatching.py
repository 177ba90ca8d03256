"""Starting tickets: at one pace whoever asks, in order, and nobody is forgotten."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from claimsvc.domain import MOST_TRIES, AuditEntry, Queue, QueueStop, StartedTicket
from claimsvc.ports import FailedTry
from claimsvc.postgres import Repositories
from claimsvc.postgres.tickets import dispatching
from tests.support.databases import administrate
from tests.support.storage import kinds, open_storage
from tests.support.tickets import (
    QUICK,
    broken_queues,
    claim,
    create_queued,
    dispatch,
    joined,
    started,
    state,
)

ENTRY = AuditEntry("test", "coupon.change", "coupon", "spring")


def users(count: int, prefix: str = "user") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def names(tickets: list[StartedTicket]) -> list[str]:
    return [each.user_id for each in tickets]


def shift(database_url: str, seconds: float) -> None:
    """As if so much time had passed, for all that waits for a time."""
    shifted = f"- make_interval(secs => {seconds})"
    administrate(
        database_url,
        f"""
        UPDATE tickets SET joined_at = joined_at {shifted}, leased_until = leased_until {shifted},
            next_try_at = next_try_at {shifted};
        UPDATE queues SET due_at = due_at {shifted}, stopped_until = stopped_until {shifted},
            starts = ARRAY(SELECT start {shifted} FROM unnest(starts) AS start ORDER BY start)
        """,
    )


async def test_the_pace_is_one_over_all_instances(database_url: str) -> None:
    """I14: over any second at most the rate, whoever looks, and about as much as the rate."""
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one, 1000, Queue(40, 1000, 60, 1000))
        await joined(one, *users(500))
        until = time.monotonic() + 3.2

        async def look(storage: Repositories) -> None:
            while time.monotonic() < until:
                await dispatch(storage)
                await asyncio.sleep(0.002)

        await asyncio.gather(look(one), look(other), look(one), look(other))
    [(most,)] = administrate(
        database_url,
        "SELECT max((SELECT count(*) FROM tickets AS other WHERE other.started_at >= ticket.started_at"
        " AND other.started_at < ticket.started_at + interval '1 second')) FROM tickets AS ticket",
    )
    assert most == 40
    [(begun,)] = administrate(database_url, "SELECT count(*) FROM tickets WHERE state = 'started'")
    assert isinstance(begun, int)
    assert 120 <= begun <= 160
    assert broken_queues(database_url) == []


async def test_no_more_are_under_way_than_the_concurrency_over_all_instances(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one, queue=replace(QUICK, concurrency=5))
        await joined(one, *users(30))
        first = await started(one)
        assert len(first) == 5
        assert await started(other, "spring") == []
        await claim(other, *first[:2])
        assert len(await started(one, "spring") + await started(other, "spring")) == 2
        await one.campaigns.change("spring", {"queue": replace(QUICK, concurrency=3)}, ENTRY)
        await claim(one, *first[2:4])
        assert await started(other, "spring") == []


async def test_tickets_start_in_the_order_of_joining(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, 1000, replace(QUICK, concurrency=10, max_wait_seconds=3600))
    everyone = users(600)
    for first in range(0, 600, 100):
        await joined(storage, *everyone[first : first + 100])
    order: list[str] = []
    while begun := await started(storage, "spring"):
        order += names(begun)
        await claim(storage, *begun)
        shift(database_url, 1)
    assert order == everyone
    claims = administrate(database_url, "SELECT user_id FROM user_claims ORDER BY claimed_at, id")
    assert [user for (user,) in claims] == everyone
    assert await storage.tickets.due_in() is None


async def test_whoever_waits_too_long_expires_also_more_than_are_read_at_once(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "_MOST_OF_A_QUEUE", 10)
    await create_queued(storage, queue=Queue(1000, 1000, 30, 100))
    await storage.tickets.pause("spring", ENTRY, paused=True)
    old = await joined(storage, *users(25))
    shift(database_url, 31)
    new = await joined(storage, "late")
    expired = 0
    for _ in range(3):
        done = await dispatch(storage)
        expired += done.expired.get("spring", 0)
    assert expired == 25
    assert {await state(storage, each) for each in old} == {"expired"}
    # Also while the queue is paused, and at their time.
    assert await state(storage, new[0]) == "waiting"
    assert done.due_seconds["spring"] == pytest.approx(30, abs=2)
    assert broken_queues(database_url) == []
    # Who has started does not expire.
    await storage.tickets.pause("spring", ENTRY, paused=False)
    [begun] = await started(storage)
    shift(database_url, 31)
    await dispatch(storage)
    assert await state(storage, begun) == "started"


async def test_a_lease_that_has_ended_is_given_again_and_only_the_last_one_may_claim(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one, queue=replace(QUICK, concurrency=2))
        await joined(one, *users(3))
        first = await started(one)
        assert await started(other, "spring") == []
        await one.tickets.renew(first, lease_seconds=5)
        shift(database_url, 4.9)
        assert await started(other, "spring") == []
        await one.tickets.renew(first[:1], lease_seconds=5)
        shift(database_url, 0.5)
        again = await started(other)
        assert [(each.user_id, each.tries) for each in again] == [("user-1", 2)]
        assert again[0].lease.token != first[1].lease.token
        # The first holder renews, gives up and claims in vain.
        await one.tickets.renew(first[1:], lease_seconds=500)
        await one.tickets.put_back([FailedTry(first[1], None)])
        assert await state(one, first[1]) == "started"
        assert kinds([*await claim(one, *first)]) == ["Claimed", "LeaseLost"]
        assert kinds([*await claim(other, *again)]) == ["Claimed"]
        assert kinds([*await claim(other, *again)]) == ["Claimed"]  # the same, found again
        assert names(await started(other, "spring")) == ["user-2"]
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(2,)]
    assert broken_queues(database_url) == []


async def test_what_is_tried_again_comes_first_at_its_time(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, queue=replace(QUICK, concurrency=2))
    await joined(storage, *users(4))
    first = await started(storage)
    await storage.tickets.put_back([FailedTry(first[0], 20.0)])
    # Its place among those under way is free meanwhile.
    assert names(await started(storage)) == ["user-2"]
    await claim(storage, first[1])
    shift(database_url, 20.1)
    # The lease of user-2 has ended, too.
    assert names(await started(storage, "spring")) == ["user-0", "user-2"]
    assert broken_queues(database_url) == []


async def test_after_the_most_tries_a_ticket_is_dead_whoever_finds_out(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    tickets = await joined(storage, "ada", "bob", "eve")
    for tries in range(1, MOST_TRIES + 1):
        begun = await started(storage)
        assert [each.tries for each in begun] == [tries] * 3
        if tries < MOST_TRIES:
            # That of bob is lost each time.
            await storage.tickets.put_back([FailedTry(each, 0.0) for each in begun if each.user_id != "bob"])
            shift(database_url, 6)
    await storage.tickets.put_back([FailedTry(begun[0], None)])
    assert (await dispatch(storage)).dead == {}
    shift(database_url, 6)
    done = await dispatch(storage)
    assert (list(done.started), done.dead) == ([], {"spring": 2})
    assert [await state(storage, each) for each in tickets] == ["dead"] * 3
    dead = await storage.tickets.dead_letters(after=None, limit=9)
    assert {each.id for each in dead} == {each.id for each in tickets}
    assert kinds([*await claim(storage, *begun)]) == ["LeaseLost"] * 3
    assert await storage.tickets.due_in() is None
    [status] = await storage.tickets.statuses()
    assert (status.dead, status.started, status.waiting) == (3, 0, 0)


async def test_a_paused_queue_starts_nobody_until_it_goes_on(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, queue=replace(QUICK, concurrency=1))
    await joined(storage, "ada", "bob")
    [ada] = await started(storage)
    await storage.tickets.put_back([FailedTry(ada, 0.0)])
    for entry in (ENTRY, ENTRY):
        await storage.tickets.pause("spring", entry, paused=True)
    assert administrate(database_url, "SELECT count(*) FROM audit WHERE action = 'coupon.change'") == [(1,)]
    assert await started(storage, "spring") == []
    found = await storage.tickets.ticket(ada.lease.ticket_id)
    assert found is not None
    assert found.stopped is QueueStop.PAUSED
    await joined(storage, "eve")  # users can still join
    assert await started(storage, "spring") == []
    await storage.tickets.pause("spring", ENTRY, paused=False)
    assert names(await started(storage)) == ["ada"]


@pytest.mark.parametrize("is_tried_again", [False, True])
async def test_a_paused_coupon_starts_nobody_and_goes_on_at_once(storage: Repositories, is_tried_again: bool) -> None:
    await create_queued(storage)
    [ticket] = await joined(storage, "ada")
    if is_tried_again:
        [begun] = await started(storage)
        await storage.campaigns.change("spring", {"paused": True}, ENTRY)
        assert kinds([*await claim(storage, begun)]) == ["Paused"]
        assert await state(storage, ticket) == "started"
        await storage.tickets.put_back([FailedTry(begun, 0.0)])
    await storage.campaigns.change("spring", {"paused": True}, ENTRY)
    assert await started(storage) == []
    found = await storage.tickets.ticket(ticket.id)
    assert found is not None
    assert (found.stopped, found.eta_seconds) == (QueueStop.PAUSED, None)
    await storage.campaigns.change("spring", {"paused": False}, ENTRY)
    due_in = await storage.tickets.due_in()
    assert due_in is not None
    assert due_in <= 0
    assert names(await started(storage)) == ["ada"]


async def test_a_start_that_was_put_off_is_waited_for(storage: Repositories, database_url: str) -> None:
    await create_queued(storage)
    [ticket] = await joined(storage, "ada")
    later = datetime.now(UTC) + timedelta(seconds=40)
    await storage.campaigns.change("spring", {"starts_at": later}, ENTRY)
    assert await started(storage) == []
    found = await storage.tickets.ticket(ticket.id)
    assert found is not None
    assert found.stopped is QueueStop.NOT_STARTED
    due_in = await storage.tickets.due_in()
    assert due_in is not None
    assert due_in == pytest.approx(40, abs=2)
    await storage.campaigns.change("spring", {"starts_at": datetime.now(UTC)}, ENTRY)
    assert names(await started(storage)) == ["ada"]


async def test_a_failure_stops_the_queue_for_a_while_and_says_so(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, queue=replace(QUICK, concurrency=1))
    [ada, bob] = await joined(storage, "ada", "bob")
    [begun] = await started(storage)
    await storage.tickets.put_back([FailedTry(begun, 0.0, stop_seconds=3.0)])
    assert await started(storage, "spring") == []
    assert {(await storage.tickets.ticket(each.id)).stopped for each in (ada, bob)} == {QueueStop.UNAVAILABLE}  # type: ignore[union-attr]
    due_in = await storage.tickets.due_in()
    assert due_in == pytest.approx(3, abs=1.5)
    shift(database_url, 3)
    assert names(await started(storage)) == ["ada"]


@pytest.mark.parametrize("queue", [Queue(1000, 9, 60, 100), None], ids=["changed", "removed"])
async def test_a_queue_that_is_changed_or_removed_goes_on_at_once_with_those_who_wait(
    storage: Repositories, queue: Queue | None
) -> None:
    await create_queued(storage, queue=Queue(1, 1, 60, 100))
    await joined(storage, *users(9))
    assert len(await started(storage)) == 1
    assert await started(storage, "spring") == []
    await storage.campaigns.change("spring", {"queue": queue}, ENTRY)
    assert names(await started(storage)) == users(9)[1:]


async def test_a_queue_that_is_locked_is_left_and_told_if_it_was_asked_for(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    await create_queued(storage, name="summer")
    await joined(storage, "ada")
    await joined(storage, "bob", on="summer")
    async with await psycopg.AsyncConnection.connect(database_url.replace("+psycopg", "")) as another:
        await another.execute("SELECT FROM queues WHERE coupon_name = 'spring' FOR UPDATE")
        done = await dispatch(storage, "spring", "nowhere")
        assert names(list(done.started)) == ["bob"]
        assert (done.looked_at, set(done.skipped)) == (1, {"spring"})
        assert (await dispatch(storage)).looked_at == 0
    assert names(await started(storage, "spring", "nowhere")) == ["ada"]


async def test_a_ticket_whose_claim_is_ending_just_now_is_not_forgotten(
    storage: Repositories, database_url: str
) -> None:
    """Its lease has ended, and it is locked; then its claim is rolled back, and whoever made it is gone."""
    await create_queued(storage)
    await joined(storage, "ada")
    await started(storage)
    shift(database_url, 6)
    async with await psycopg.AsyncConnection.connect(database_url.replace("+psycopg", "")) as another:
        await another.execute("SELECT FROM tickets FOR NO KEY UPDATE")
        assert await started(storage) == []
        due_in = await storage.tickets.due_in()
        assert due_in is not None
        assert due_in < 0.5
    shift(database_url, 1)
    assert names(await started(storage)) == ["ada"]


async def test_no_more_lost_leases_than_fit_into_a_pass_are_forgotten(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "_MOST_OF_A_QUEUE", 4)
    for name in ("autumn", "spring"):
        await create_queued(storage, queue=QUICK, name=name)
        await joined(storage, *users(6), on=name)
    while await started(storage):
        pass
    shift(database_url, 6)
    found: list[str] = []
    for _ in range(6):
        found += [f"{each.coupon_name} {each.user_id}" for each in await started(storage)]
        assert broken_queues(database_url) == []
        shift(database_url, 0.2)
    assert sorted(found) == sorted(f"{name} {user}" for name in ("autumn", "spring") for user in users(6))


async def test_renewing_and_giving_up_wait_for_no_claim(storage: Repositories, database_url: str) -> None:
    """A claim's transaction locks the tickets of its batch. Whoever waited for them could wait in a circle."""
    await create_queued(storage)
    await joined(storage, *users(4))
    begun = await started(storage)
    async with await psycopg.AsyncConnection.connect(database_url.replace("+psycopg", "")) as another:
        await another.execute("SELECT FROM tickets WHERE place < 2 FOR NO KEY UPDATE")
        before = time.monotonic()
        await storage.tickets.renew(begun, lease_seconds=50)
        await storage.tickets.put_back([FailedTry(begun[0], 0.0), FailedTry(begun[3], 0.0)])
        assert time.monotonic() - before < 0.9  # the time-out of a lock is a second
    leases = administrate(
        database_url, "SELECT coalesce(leased_until > now() + interval '9 s', false) FROM tickets ORDER BY place"
    )
    assert [is_renewed for (is_renewed,) in leases] == [False, False, True, False]
    # It is tried again once its lease has ended.
    shift(database_url, 6)
    assert names(await started(storage)) == ["user-0", "user-1", "user-3"]


async def test_a_clock_that_was_set_back_does_not_stop_a_queue_that_is_asked_for(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage, queue=replace(QUICK, rate_per_second=2))
    await joined(storage, *users(4))
    assert len(await started(storage)) == 2
    shift(database_url, -3600)
    assert (await dispatch(storage)).looked_at == 0
    done = await dispatch(storage, "spring")
    assert list(done.started) == []
    assert 0 < done.due_seconds["spring"] <= 1.0
    shift(database_url, 1.1)
    assert len(await started(storage)) == 2
