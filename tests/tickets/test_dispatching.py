"""Starting tickets: each claim is made once its turn has come, and again until it is decided."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from claimsvc.claiming.batching import BatchLimits, WaitingRoom
from claimsvc.claiming.strategies import RowLockStrategy
from claimsvc.domain import ClaimOptions, Queue, TicketState
from claimsvc.errors import ClaimsvcError, LockBusyError, UnavailableError
from claimsvc.ports import Claims, PendingOutcome, Tickets
from claimsvc.postgres import Repositories
from claimsvc.tickets import dispatching
from claimsvc.tickets.dispatching import TicketDispatcher
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.storage import open_storage
from tests.support.tickets import Seen, broken_queues, create_queued, joined, started, state
from tests.support.waiting import until
from tests.tickets.watched_store import WatchedTickets


class Disturbed:
    """`ports.Claims` that asks first what becomes of a claim: a failure, a future of the test's own, or the claim."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self.times: dict[str, list[float]] = {}
        self.disturb: Callable[[str], ClaimsvcError | PendingOutcome | None] = lambda _: None

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        self.times.setdefault(user_id, []).append(time.monotonic())
        disturbed = self.disturb(user_id)
        if disturbed is None:
            return self._claims.claim(coupon_name, user_id, options)
        if isinstance(disturbed, PendingOutcome):
            return disturbed
        failed = PendingOutcome()
        failed.set_exception(disturbed)
        return failed

    async def drain(self) -> None:
        await self._claims.drain()


@asynccontextmanager
async def claims_on(storage: Repositories) -> AsyncIterator[Disturbed]:
    observed = Observed()
    limits = BatchLimits(
        batch_size=64, lock_timeout_seconds=6.0, queue_timeout_seconds=10.0, claim_timeout_seconds=20.0
    )
    strategy = RowLockStrategy(storage.admission, limits=limits, room=WaitingRoom(1000, observed), observer=observed)
    claims = Disturbed(strategy)
    yield claims
    await claims.drain()


@asynccontextmanager
async def dispatching_on(storage: Repositories, instance: str = "a") -> AsyncIterator[tuple[Disturbed, Seen]]:
    seen = Seen()
    async with claims_on(storage) as claims:
        dispatcher = TicketDispatcher(storage.tickets, claims, seen, instance=instance)
        async with dispatcher.running():
            yield claims, seen


def ended(database_url: str) -> dict[str, int]:
    rows = administrate(database_url, "SELECT state, count(*) FROM tickets GROUP BY 1")
    return {str(end): count for end, count in rows if isinstance(count, int)}


async def test_all_that_wait_are_claimed_and_told_to_whoever_observes(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, 100, Queue(1000, 7, 60, 1000))
    async with dispatching_on(storage) as (_, seen):
        await joined(storage, *(f"user-{number}" for number in range(90)))
        await until(lambda: ended(database_url) == {"claimed": 90}, "all are claimed")
        await until(lambda: seen.ends[TicketState.CLAIMED] == 90, "all ends are told")
    assert len(seen.started) == 90
    assert seen.lags
    assert broken_queues(database_url) == []


async def test_a_claim_that_fails_is_tried_again_later_and_later_while_the_queue_stands_still(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    failures = [UnavailableError("gone", dependency="postgresql"), UnavailableError("gone", dependency="redis")]
    async with dispatching_on(storage) as (claims, seen):
        claims.disturb = lambda user: failures.pop() if user == "ada" and failures else None
        [ada] = await joined(storage, "ada")
        await until(lambda: not failures, "both tries have failed")

        async def says_so() -> bool:
            found = await storage.tickets.ticket(ada.id)
            return found is not None and found.stopped == "unavailable"

        await until(says_so, "the ticket says that the service fails")
        await until(lambda: ended(database_url) == {"claimed": 1}, "it is claimed after all")
        first, second, third = claims.times["ada"]
        assert second - first >= 0.5
        assert third - second >= 1.0
        await until(lambda: seen.ends == {TicketState.CLAIMED: 1}, "the end is told once")
    assert len(seen.started) == 1


async def test_a_busy_lock_stops_nobody_else(storage: Repositories, database_url: str) -> None:
    await create_queued(storage)
    async with dispatching_on(storage) as (claims, _):
        claims.disturb = lambda user: LockBusyError("busy") if user == "ada" else None
        await joined(storage, "ada", "bob")
        await until(lambda: ended(database_url).get("claimed") == 1, "the other is claimed")
        await until(lambda: len(claims.times["ada"]) >= 2, "it is tried again")
        [later] = await joined(storage, "eve")

        async def is_claimed() -> bool:
            return await state(storage, later) == "claimed"

        await until(is_claimed, "whoever joins later is claimed")


async def test_after_the_most_tries_a_ticket_is_a_dead_letter(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "MOST_TRIES", 2)
    await create_queued(storage)
    async with dispatching_on(storage) as (claims, seen):
        claims.disturb = lambda _: LockBusyError("busy")
        await joined(storage, "ada")
        await until(lambda: seen.ends == {TicketState.DEAD: 1}, "it is told as dead")
        assert len(claims.times["ada"]) == 2
    assert ended(database_url) == {"dead": 1}


async def test_whoever_is_found_without_the_lease_is_told_as_no_end(storage: Repositories, database_url: str) -> None:
    await create_queued(storage)
    async with dispatching_on(storage) as (claims, seen):
        lost = PendingOutcome()
        claims.disturb = lambda user: lost if user == "ada" and not lost.done() else None
        await joined(storage, "ada")
        await until(lambda: "ada" in claims.times, "it is started")
        administrate(database_url, "UPDATE tickets SET lease = gen_random_uuid(), leased_until = now()")
        administrate(database_url, "UPDATE queues SET due_at = now()")
        lost.set_exception(LockBusyError("too late"))
        await until(lambda: ended(database_url) == {"claimed": 1}, "the next holder claims it")
        await until(lambda: seen.ends == {TicketState.CLAIMED: 1}, "that is the only end")


async def test_a_dispatcher_that_stops_leaves_claims_under_way_to_end_and_the_rest_to_others(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    async with claims_on(storage) as claims:
        seen = Seen()
        pending: list[PendingOutcome] = []

        def never(_: str) -> PendingOutcome:
            pending.append(PendingOutcome())
            return pending[-1]

        claims.disturb = never
        async with TicketDispatcher(storage.tickets, claims, seen, instance="a").running():
            await joined(storage, "ada", "bob")
            await until(lambda: len(pending) == 2, "both are started")
        # It has stopped although they never end; then one of them fails.
        pending[0].set_exception(LockBusyError("busy"))
        await asyncio.sleep(0)
        assert seen.ends == {}
        assert ended(database_url) == {"started": 2}
        administrate(database_url, "UPDATE tickets SET leased_until = now()")
        administrate(database_url, "UPDATE queues SET due_at = now()")
        claims.disturb = lambda _: None
        async with TicketDispatcher(storage.tickets, claims, seen, instance="b").running():
            await until(lambda: ended(database_url) == {"claimed": 2}, "another has claimed both")


async def test_tickets_of_a_dispatcher_that_died_are_started_when_their_leases_end(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage, queue=Queue(1000, 2, 60, 100))
    await joined(storage, *(f"user-{number}" for number in range(5)))
    assert len(await started(storage)) == 2  # and nobody claims them
    async with dispatching_on(storage):
        await until(lambda: ended(database_url) == {"claimed": 5}, "all are claimed", within_seconds=15)
    assert broken_queues(database_url) == []


async def test_a_claim_that_takes_long_keeps_its_lease(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "LEASE_SECONDS", 1.2)
    monkeypatch.setattr(dispatching, "_RENEW_SECONDS", 0.2)
    await create_queued(storage)
    async with dispatching_on(storage) as (claims, _), dispatching_on(storage, "b") as (others, _):
        slow = PendingOutcome()
        claims.disturb = others.disturb = lambda _: slow
        await joined(storage, "ada")
        await asyncio.sleep(3)
        assert sum(len(each.times.get("ada", ())) for each in (claims, others)) == 1


async def test_several_instances_never_wait_for_a_lease_that_has_ended_in_time(database_url: str) -> None:
    """One at a time, on three instances: whichever has a claim end starts the next, also if another looks just then."""
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (two, _):
        await create_queued(one, 1000, Queue(1000, 1, 60, 1000))
        await joined(one, *(f"user-{number}" for number in range(150)))
        before = time.monotonic()
        async with dispatching_on(one), dispatching_on(two, "b"), dispatching_on(one, "c"):
            await until(lambda: ended(database_url) == {"claimed": 150}, "all are claimed", within_seconds=60)
        # Each wait for a lease would take 5 s.
        assert time.monotonic() - before < 30
        gaps = administrate(
            database_url,
            "SELECT max(gap) FROM (SELECT extract(epoch FROM started_at - lag(started_at) OVER (ORDER BY started_at))"
            " AS gap FROM tickets) AS gaps",
        )
        assert float(str(gaps[0][0])) < 3
    order = administrate(database_url, "SELECT user_id FROM user_claims ORDER BY claimed_at, id")
    assert [user for (user,) in order] == [f"user-{number}" for number in range(150)]


async def test_what_could_not_be_written_down_is_found_by_the_next_pass(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    watched = WatchedTickets(storage.tickets)
    watched.failing.update({"dispatch": 2, "due_in": 2, "put_back": 1, "renew": 1})
    async with claims_on(storage) as claims:
        failures: list[ClaimsvcError] = [LockBusyError("busy")]
        claims.disturb = lambda _: failures.pop() if failures else None
        dispatcher = TicketDispatcher(cast("Tickets", watched), claims, Seen(), instance="a")
        async with dispatcher.running():
            await joined(storage, "ada")
            dispatcher.joined("spring")
            await until(lambda: ended(database_url) == {"claimed": 1}, "it is claimed", within_seconds=20)
    assert not +watched.failing - Counter({"renew": 1})


async def test_an_unknown_failure_ends_no_loop(storage: Repositories, database_url: str) -> None:
    await create_queued(storage)
    watched = WatchedTickets(storage.tickets)
    async with claims_on(storage) as claims:
        dispatcher = TicketDispatcher(cast("Tickets", watched), claims, Seen(), instance="a")
        watched.broken["due_in"] = ZeroDivisionError()
        async with dispatcher.running():
            await joined(storage, "ada")
            await asyncio.sleep(0.3)
            assert ended(database_url) == {"waiting": 1}
            del watched.broken["due_in"]
            await until(lambda: ended(database_url) == {"claimed": 1}, "it goes on")
