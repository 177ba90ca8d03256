"""News of tickets: whatever becomes of them in any instance is told, at a cost that does not grow with who watches."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from claimsvc.domain import PLACES_IN_A_BLOCK, AuditEntry, Queue, QueueStop, Ticket, TicketState
from claimsvc.ports import Tickets
from claimsvc.postgres import Repositories
from claimsvc.tickets import progress as module
from claimsvc.tickets.progress import TicketProgress
from tests.support.databases import administrate
from tests.support.storage import open_storage
from tests.support.tickets import QUICK, claim, create_queued, dispatch, joined, started
from tests.support.waiting import until
from tests.tickets.watched_store import WatchedTickets

ENTRY = AuditEntry("test", "coupon.change", "coupon", "spring")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SOONEST_SECONDS", 0.1)
    monkeypatch.setattr(module, "_LATEST_SECONDS", 0.1)


@asynccontextmanager
async def watching(storage: Repositories) -> AsyncIterator[tuple[TicketProgress, WatchedTickets]]:
    watched = WatchedTickets(storage.tickets)
    progress = TicketProgress(cast("Tickets", watched))
    async with progress.running():
        yield progress, watched


async def news_of(progress: TicketProgress, ticket: Ticket, *, within_seconds: float = 20.0) -> Ticket:
    found = await progress.changed(ticket, within_seconds=within_seconds)
    assert found is not None
    return found


async def test_places_starts_and_ends_are_told_whichever_instance_has_written_them(database_url: str) -> None:
    async with open_storage(database_url) as (here, _), open_storage(database_url) as (elsewhere, _):
        await create_queued(here, 100, Queue(1000, 1, 60, 100))
        [*_, ada] = await joined(here, "first", "second", "ada")
        async with watching(here) as (progress, _):
            ticket = ada
            for position in (2, 1, 0):
                waiting = asyncio.create_task(news_of(progress, ticket))
                await asyncio.sleep(0)
                begun = await started(elsewhere, "spring")
                ticket = await waiting
                assert ticket.position == position
                if position:
                    await claim(elsewhere, *begun)
            assert ticket.state is TicketState.STARTED
            waiting = asyncio.create_task(news_of(progress, ticket))
            [outcome] = await claim(elsewhere, *begun)
            ticket = await waiting
            assert (ticket.state, ticket.claim) == (TicketState.CLAIMED, outcome.claim)
            # An end is told at once.
            assert await news_of(progress, ticket) == ticket


async def test_who_leaves_or_expires_or_is_purged_is_told(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, 100, Queue(1, 1, 60, 100))
    [_, left, expired, gone] = await joined(storage, "first", "left", "expired", "gone")
    await dispatch(storage)
    async with watching(storage) as (progress, _):
        tasks = [asyncio.create_task(progress.changed(each, within_seconds=20)) for each in (left, expired, gone)]
        await asyncio.sleep(0.3)
        await storage.tickets.leave(left.id)
        administrate(
            database_url,
            f"UPDATE tickets SET state = 'expired', ended_at = now() WHERE id = '{expired.id}';"
            f"DELETE FROM tickets WHERE id = '{gone.id}'; UPDATE queues SET waiting = 0;"
            "UPDATE ticket_blocks SET waiting = 0",
        )
        found = await asyncio.gather(*tasks)
    assert [each and each.state for each in found] == [TicketState.LEFT, TicketState.EXPIRED, None]


async def test_nothing_new_is_told_as_it_is_at_the_end_of_the_time(storage: Repositories) -> None:
    await create_queued(storage)
    await storage.tickets.pause("spring", ENTRY, paused=True)
    [ada] = await joined(storage, "ada")
    async with watching(storage) as (progress, _):
        told = await news_of(progress, ada, within_seconds=10)
        assert (told.stopped, told.position) == (QueueStop.PAUSED, 1)
        assert await news_of(progress, told, within_seconds=0.7) == told


async def test_who_watches_a_ticket_that_has_started_before_is_told_beside_others_of_its_block(
    storage: Repositories,
) -> None:
    await create_queued(storage, 1000, Queue(1000, 1, 60, 1000))
    tickets = await joined(storage, *(f"user-{number}" for number in range(PLACES_IN_A_BLOCK + 9)))
    await started(storage)  # user-0
    async with watching(storage) as (progress, watched):
        # The block is known without it, and nothing more happens in it.
        other = asyncio.create_task(progress.changed(tickets[-10], within_seconds=20))
        await until(lambda: watched.calls["places"] and watched.calls["progress"] > 1, "the block is known")
        assert (await news_of(progress, tickets[0], within_seconds=5)).state is TicketState.STARTED
        other.cancel()


async def test_what_could_not_be_read_is_told_later(storage: Repositories) -> None:
    await create_queued(storage, 1000, Queue(1000, 1, 60, 1000))
    tickets = await joined(storage, *(f"user-{number}" for number in range(PLACES_IN_A_BLOCK + 9)))
    async with watching(storage) as (progress, watched):
        first = asyncio.create_task(news_of(progress, tickets[0]))
        other = asyncio.create_task(progress.changed(tickets[1], within_seconds=20))
        await until(lambda: watched.calls["places"] and watched.calls["progress"] > 1, "the block is known")
        watched.failing.update({"read": 2, "progress": 1, "places": 1})
        await started(storage)
        assert (await first).state is TicketState.STARTED
        assert not +watched.failing
        other.cancel()


async def queries_of(storage: Repositories, tickets: list[Ticket], watchers_of_each: int) -> float:
    """How many queries one look makes."""
    async with watching(storage) as (progress, watched):
        tasks = [
            asyncio.create_task(progress.changed(each, within_seconds=30))
            for each in tickets
            for _ in range(watchers_of_each)
        ]
        await until(lambda: watched.calls["progress"] > 3, "it has looked a few times")
        looks = watched.calls["progress"]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sum(watched.calls.values()) / looks


async def test_the_queries_of_a_look_do_not_depend_on_how_many_watch(storage: Repositories) -> None:
    await create_queued(storage, 10_000, QUICK)
    await storage.tickets.pause("spring", ENTRY, paused=True)
    new = await joined(storage, *(f"user-{number}" for number in range(1500)))
    tickets = await storage.tickets.read([each.id for each in new])  # with what stops them
    few = await queries_of(storage, tickets[:3], 1)
    many = await queries_of(storage, tickets, 2)
    assert few <= 3
    assert many <= 3


async def test_nobody_asks_the_database_while_nobody_watches(storage: Repositories) -> None:
    await create_queued(storage)
    [ada] = await joined(storage, "ada")
    async with watching(storage) as (progress, watched):
        await progress.changed(ada, within_seconds=0.2)
        await asyncio.sleep(0.8)
        before = watched.calls.total()
        await asyncio.sleep(1.2)
        progress.noticed("spring")
        await asyncio.sleep(0.3)
        assert watched.calls.total() == before


@pytest.mark.parametrize("seed", range(2))
async def test_a_position_never_grows_for_whoever_watches_it(database_url: str, seed: int) -> None:
    chance = random.Random(seed)
    async with open_storage(database_url) as (here, _), open_storage(database_url) as (elsewhere, _):
        await create_queued(here, 10_000, Queue(1000, 30, 600, 10_000))
        tickets = await joined(here, *(f"user-{number}" for number in range(600)))
        told: list[list[int]] = []

        async def watch(progress: TicketProgress, ticket: Ticket) -> None:
            positions = [ticket.position or 0]
            told.append(positions)
            while not ticket.state.is_end:
                ticket = await news_of(progress, ticket)
                positions.append(-1 if ticket.position is None else ticket.position)

        async with watching(here) as (progress, _):
            watchers = [asyncio.create_task(watch(progress, each)) for each in chance.sample(tickets, 40)]
            left = chance.sample(tickets, 60)
            number = 0
            while not all(each.done() for each in watchers):
                number += 1
                if left:
                    await elsewhere.tickets.leave(left.pop().id)
                if number < 20:
                    await joined(elsewhere, *(f"late-{number}-{each}" for each in range(20)))
                if begun := await started(elsewhere, "spring"):
                    await claim(elsewhere, *begun)
                progress.noticed("spring")
                await asyncio.sleep(0.05)
            await asyncio.gather(*watchers)
    for positions in told:
        assert positions == sorted(positions, reverse=True)
        assert positions[-1] == -1
    assert any(len(positions) > 3 for positions in told)
