"""Joining: requests that arrive together join together, and none is left without an answer."""

import asyncio
from typing import cast

import pytest

from claimsvc.domain import Claimed, Queued, QueueFull, Replayed, SoldOut, Ticket, UnknownCoupon
from claimsvc.errors import UnavailableError
from claimsvc.ports import Tickets
from claimsvc.postgres import Repositories
from claimsvc.tickets import joining
from claimsvc.tickets.joining import TicketDesk
from tests.support.databases import administrate
from tests.support.storage import attempts
from tests.support.tickets import create_queued, joined, keyed, started
from tests.tickets.watched_store import WatchedTickets


def desk_of(storage: Repositories, *, limit: int = 1000) -> tuple[TicketDesk, WatchedTickets]:
    watched = WatchedTickets(storage.tickets)
    return TicketDesk(cast("Tickets", watched), storage.admission, waiting_limit=limit), watched


def ticket_of(outcome: object) -> Ticket:
    assert isinstance(outcome, Queued)
    return outcome.ticket


async def test_those_that_arrive_together_join_together_in_their_order(storage: Repositories) -> None:
    await create_queued(storage, 1000)
    desk, watched = desk_of(storage)
    told: list[str] = []
    desk.on_joined = told.append
    answers = [desk.join("spring", f"user-{number}") for number in range(200)]
    outcomes = await asyncio.gather(*answers)
    assert [ticket_of(each).position for each in outcomes] == list(range(1, 201))
    assert watched.calls["join"] <= 3  # once more, after the queue was made
    assert told == ["spring"]


async def test_no_batch_is_longer_than_it_may_be(storage: Repositories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_MOST_AT_ONCE", 50)
    await create_queued(storage, 1000)
    desk, watched = desk_of(storage)
    outcomes = await asyncio.gather(*(desk.join("spring", f"user-{number}") for number in range(120)))
    assert [ticket_of(each).position for each in outcomes] == list(range(1, 121))
    assert [len(requests) for _, (_, requests) in watched.arguments] == [50, 50, 20]


async def test_a_failure_is_the_answer_of_all_that_wait_for_it_and_of_nobody_else(storage: Repositories) -> None:
    await create_queued(storage)
    desk, watched = desk_of(storage)
    watched.failing["join"] = 1
    failed = await asyncio.gather(*(desk.join("spring", f"user-{n}") for n in range(5)), return_exceptions=True)
    assert [type(each) for each in failed] == [UnavailableError] * 5
    outcomes = await asyncio.gather(*(desk.join("spring", f"user-{n}") for n in range(5)))
    assert [ticket_of(each).position for each in outcomes] == [1, 2, 3, 4, 5]


async def test_those_who_have_gone_do_not_join_however_many_they_are(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_MOST_AT_ONCE", 4)
    await create_queued(storage)
    desk, _ = desk_of(storage)
    gone = [desk.join("spring", f"gone-{number}") for number in range(9)]
    there = desk.join("spring", "ada")
    for each in gone:
        each.cancel()
    assert ticket_of(await there).position == 1
    assert administrate(database_url, "SELECT count(*) FROM tickets") == [(1,)]


async def test_a_desk_that_is_closed_answers_all_it_has_accepted(storage: Repositories) -> None:
    await create_queued(storage)
    desk, _ = desk_of(storage)
    answers = [desk.join("spring", f"user-{number}") for number in range(20)]
    draining = asyncio.create_task(desk.drain())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="stopping"):
        await desk.join("spring", "late")
    await draining
    assert [ticket_of(each.result()).position for each in answers] == list(range(1, 21))


async def test_no_more_wait_than_the_limit_and_places_come_back(storage: Repositories) -> None:
    await create_queued(storage)
    desk, _ = desk_of(storage, limit=3)
    for _ in range(3):
        answers = [desk.join("spring", f"user-{number}") for number in range(5)]
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(each) for each in found] == [Queued] * 3 + [UnavailableError] * 2


async def test_each_gets_its_own_answer_whatever_the_others_get(storage: Repositories) -> None:
    await create_queued(storage, 2)
    [claimed] = await storage.admission.admit(attempts("ada"))
    assert isinstance(claimed, Claimed)
    desk, _ = desk_of(storage)
    outcomes = await asyncio.gather(*(desk.join("spring", user) for user in ("ada", "bob", "eve", "bob")))
    assert [type(each).__name__ for each in outcomes] == ["AlreadyClaimed", "Queued", "QueueFull", "Queued"]
    assert isinstance(outcomes[2], QueueFull)
    assert outcomes[2].retry_seconds >= 1
    await storage.admission.admit(attempts("zoe"))
    assert await desk.join("spring", "eve") == SoldOut()
    assert await desk.join("nowhere", "eve") == UnknownCoupon()


async def test_a_repeated_request_learns_of_its_place_as_it_is_now(storage: Repositories) -> None:
    await create_queued(storage)
    desk, _ = desk_of(storage)
    await joined(storage, "first")
    assert ticket_of(await desk.join("spring", "ada", keyed("k"))).position == 2
    await started(storage)
    again = await desk.join("spring", "ada", keyed("k"))
    assert isinstance(again, Replayed)
    assert ticket_of(again.answer).position == 0
