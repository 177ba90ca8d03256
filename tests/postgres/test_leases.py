"""Queues are locked before they are joined, and leases end: who is slow or gone loses nothing and holds up nobody."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
from uuid_utils.compat import uuid7

from claimsvc.domain import PLAIN, JoinRequest, Queue, Queued, StrategyName, TicketState
from claimsvc.ports import FailedTry
from claimsvc.postgres import Repositories
from claimsvc.postgres.tickets import PostgresTickets, joining, joining_all
from tests.support.waiting import until

_QUEUE = Queue(rate_per_second=1000, concurrency=2, max_wait_seconds=60, max_length=100)


async def _create(storage: Repositories) -> None:
    await storage.campaigns.create("spring", 100, StrategyName.REDLOCK, replace(PLAIN, queue=_QUEUE), actor="test")


async def _join(storage: Repositories, *users: str) -> list[str]:
    joined = await storage.tickets.join("spring", [JoinRequest(str(uuid7()), user) for user in users])
    return [each.ticket.id for each in joined if isinstance(each, Queued)]


async def test_a_queue_that_was_created_after_it_could_be_locked_is_not_joined(
    storage: Repositories, database_url: str
) -> None:
    await _create(storage)
    which = {"coupon_name": "spring"}
    request = joining._parameters("spring", [JoinRequest(str(uuid7()), "late")], in_doubt=False)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(joining_all.LOCK_TO_JOIN.encode(), which)
        assert len(await _join(storage, "ada", "ben")) == 2
        # Without the lock it would take a place that is taken, or one too many.
        assert await (await connection.execute(joining._JOIN.encode(), request)).fetchall() == []
        await connection.rollback()
        await connection.execute(joining_all.LOCK_TO_JOIN.encode(), which)
        assert len(await (await connection.execute(joining._JOIN.encode(), request)).fetchall()) == 1


async def test_instances_that_create_a_queue_at_once_let_all_join(storage: Repositories) -> None:
    await _create(storage)
    found = await asyncio.gather(*(_join(storage, f"user-{number}") for number in range(16)))
    tickets = await storage.tickets.read([each for ids in found for each in ids])
    assert sorted(each.position or 0 for each in tickets) == list(range(1, 17))


async def test_a_queue_is_due_again_while_a_claim_holds_on_to_a_ticket_whose_lease_has_ended(
    storage: Repositories, database_url: str
) -> None:
    await _create(storage)
    [ticket] = await _join(storage, "ada")
    [first] = (await storage.tickets.dispatch("a", lease_seconds=0.1)).started
    async with await psycopg.AsyncConnection.connect(database_url) as claim:
        await claim.execute("SELECT FROM tickets WHERE id = %s FOR NO KEY UPDATE", [ticket])
        await asyncio.sleep(0.15)  # the lease
        await _join(storage, "ben", "cleo")
        dispatched = await storage.tickets.dispatch("b", lease_seconds=60)
        # The claim may be committed yet, so it is still under way.
        assert [each.user_id for each in dispatched.started] == ["ben"]
        assert dispatched.due_seconds["spring"] > 0
        await claim.rollback()  # nobody tells the queue

    async def is_started() -> bool:
        started = (await storage.tickets.dispatch("b", lease_seconds=60)).started
        return [each.user_id for each in started] == ["ada"]

    await until(is_started, "the ticket is started again")
    [now] = await storage.tickets.read([ticket])
    assert (now.state, now.tries) == (TicketState.STARTED, first.tries + 1)


async def test_a_lease_that_has_ended_is_not_renewed(storage: Repositories) -> None:
    await _create(storage)
    await _join(storage, "ada", "ben", "cleo")
    first = (await storage.tickets.dispatch("a", lease_seconds=0.1)).started
    assert len(first) == _QUEUE.concurrency
    await asyncio.sleep(0.15)  # the leases
    await storage.tickets.renew(first, lease_seconds=60)
    again = (await storage.tickets.dispatch("b", lease_seconds=60)).started
    assert {each.user_id for each in again} == {"ada", "ben"}


async def test_a_clock_that_was_set_back_holds_up_no_queue(storage: Repositories, database_url: str) -> None:
    await _create(storage)
    await _join(storage, "ada", "ben", "cleo")
    [ada, ben] = (await storage.tickets.dispatch("a", lease_seconds=5)).started
    await storage.tickets.put_back([FailedTry(ada, 1.0, stop_seconds=1.0)])
    minute = "interval '1 minute'"
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as ahead:
        # As it would be had it been written by a clock that was a minute ahead, and was read so.
        await ahead.execute(
            f"UPDATE queues SET due_at = due_at + {minute}, stopped_until = stopped_until + {minute}".encode()
        )
        await ahead.execute(
            f"UPDATE tickets SET leased_until = leased_until + {minute}, next_try_at = next_try_at + {minute}".encode()
        )
        assert isinstance(storage.tickets, PostgresTickets)
        storage.tickets._clock.advanced(datetime.now(UTC) + timedelta(minutes=1))
        assert await storage.tickets.due_in() == 0
        [again] = (await storage.tickets.dispatch("b", lease_seconds=5)).started
        assert again.user_id == "ada"
        lease = await ahead.execute("SELECT leased_until < now() + interval '6 s' FROM tickets WHERE user_id = 'ben'")
        assert await lease.fetchone() == (True,)
    await storage.tickets.renew([ben], lease_seconds=5)
    assert not (await storage.tickets.dispatch("b", lease_seconds=5)).started
