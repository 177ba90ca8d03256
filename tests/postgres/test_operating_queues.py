"""What operators do to queues and dead letters, in PostgreSQL: once each, audited, whoever does it at the same time."""

import asyncio
from dataclasses import replace

import pytest
from uuid_utils.compat import uuid7

from claimsvc.domain import (
    AuditEntry,
    AuditFilter,
    IdempotencyKey,
    JoinRequest,
    KeyReused,
    QueueChanged,
    Replayed,
    StrategyName,
    Ticket,
    TicketDiscarded,
    TicketNotDead,
    TicketReplaced,
    TicketRequeued,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.ports import FailedTry
from claimsvc.postgres import Repositories
from tests.support.storage import create_coupon

_KEY = IdempotencyKey("op", "k-1", b"\x02" + b"f" * 32, "r-1", lambda: b"")
_PAUSE = AuditEntry("op", "queue.pause", "coupon", "spring", reason="the shop is down")


def _entry(ticket: Ticket, action: str = "ticket.requeue") -> AuditEntry:
    return AuditEntry("op", action, "ticket", ticket.id, reason="why")


async def _entries(storage: Repositories) -> list[tuple[str, str]]:
    found = await storage.audit_log.entries(AuditFilter(actor="op"), after=None, limit=100)
    return [(each.action, each.subject) for each in reversed(found)]


async def _dead(storage: Repositories, *users: str) -> list[Ticket]:
    """Tickets of these users that have failed too often, in this order."""
    await create_coupon(storage, "spring", 100, StrategyName.REDLOCK)
    requests = [JoinRequest(str(uuid7()), user) for user in users]
    for request in requests:
        await storage.tickets.join("spring", [request])
        [started] = (await storage.tickets.dispatch("web-1", lease_seconds=60)).started
        await storage.tickets.put_back([FailedTry(started, None)])
    dead = await storage.tickets.read([request.ticket_id for request in requests])
    assert [each.state for each in dead] == [TicketState.DEAD] * len(users)
    return sorted(dead, key=lambda each: users.index(each.user_id))


async def test_dead_letters_are_listed_page_by_page_also_if_some_are_gone_meanwhile(storage: Repositories) -> None:
    dead = await _dead(storage, "ann", "bob", "eve", "zoe")
    ids = [each.id for each in dead]

    async def page(after: str | None) -> list[str]:
        return [each.id for each in await storage.tickets.dead_letters(after=after, limit=2)]

    assert [await page(None), await page(ids[1]), await page(ids[3])] == [ids[:2], ids[2:], []]
    await storage.tickets.discard(ids[1], _entry(dead[1], "ticket.discard"))
    assert set(await page(ids[1])) <= {ids[0], *ids[2:]}
    assert await page(ids[0]) == ids[2:]


async def test_of_many_who_requeue_a_dead_letter_one_does(storage: Repositories) -> None:
    [dead] = await _dead(storage, "ann")
    told = await asyncio.gather(*(storage.tickets.requeue(dead.id, _entry(dead)) for _ in range(4)))
    assert sorted(type(each).__name__ for each in told) == ["TicketNotDead"] * 3 + ["TicketRequeued"]
    assert await _entries(storage) == [("ticket.requeue", dead.id)]
    [again] = (await storage.tickets.dispatch("web-1", lease_seconds=60)).started
    assert (again.lease.ticket_id, again.tries) == (dead.id, 1)
    assert await storage.tickets.dead_letters(after=None, limit=10) == []


async def test_a_dead_letter_that_is_given_up_stays_so(storage: Repositories) -> None:
    [dead] = await _dead(storage, "ann")
    discarded = await storage.tickets.discard(dead.id, _entry(dead, "ticket.discard"))
    assert isinstance(discarded, TicketDiscarded)
    assert discarded.ticket.state is TicketState.LEFT
    assert await storage.tickets.discard(dead.id, _entry(dead, "ticket.discard")) == TicketNotDead()
    assert await storage.tickets.requeue(dead.id, _entry(dead)) == TicketNotDead()
    unknown = replace(dead, id=str(uuid7()))
    assert await storage.tickets.requeue(unknown.id, _entry(unknown)) == UnknownTicket()
    assert await storage.tickets.discard(unknown.id, _entry(unknown)) == UnknownTicket()
    assert await _entries(storage) == [("ticket.discard", dead.id)]


async def test_a_dead_letter_is_not_tried_again_beside_another_ticket_of_its_user(storage: Repositories) -> None:
    [dead] = await _dead(storage, "ann")
    await storage.tickets.join("spring", [JoinRequest(str(uuid7()), "ann")])
    assert await storage.tickets.requeue(dead.id, _entry(dead)) == TicketReplaced()
    assert [each.id for each in await storage.tickets.dead_letters(after=None, limit=10)] == [dead.id]
    assert await _entries(storage) == []


async def test_what_is_asked_again_under_its_key_is_answered_as_before(storage: Repositories) -> None:
    [dead] = await _dead(storage, "ann")
    first = await storage.tickets.requeue(dead.id, _entry(dead), _KEY)
    assert isinstance(first, TicketRequeued)
    assert await storage.tickets.requeue(dead.id, _entry(dead), _KEY) == Replayed(first, "r-1")
    other = replace(_KEY, fingerprint=b"\x02" + b"g" * 32)
    assert await storage.tickets.requeue(dead.id, _entry(dead), other) == KeyReused()

    key = replace(_KEY, key="k-2")
    changed = await storage.tickets.pause("spring", _PAUSE, paused=True, idempotency_key=key)
    assert isinstance(changed, QueueChanged)
    await storage.tickets.pause("spring", replace(_PAUSE, action="queue.resume"), paused=False)
    assert await storage.tickets.pause("spring", _PAUSE, paused=True, idempotency_key=key) == Replayed(changed, "r-1")
    [status] = await storage.tickets.statuses(["spring"])
    assert not status.is_paused


@pytest.mark.parametrize("times", [1, 3])
async def test_a_paused_queue_starts_nothing_until_it_goes_on(storage: Repositories, times: int) -> None:
    await create_coupon(storage, "spring", 100, StrategyName.REDLOCK)
    for _ in range(times):
        changed = await storage.tickets.pause("spring", _PAUSE, paused=True)
        assert isinstance(changed, QueueChanged)
        assert changed.status.is_paused
    await storage.tickets.join("spring", [JoinRequest(str(uuid7()), "ann")])
    assert (await storage.tickets.dispatch("web-1", lease_seconds=60)).started == []
    await storage.tickets.pause("spring", replace(_PAUSE, action="queue.resume"), paused=False)
    assert len((await storage.tickets.dispatch("web-1", lease_seconds=60)).started) == 1
    assert await _entries(storage) == [("queue.pause", "spring"), ("queue.resume", "spring")]
    assert await storage.tickets.pause("none", _PAUSE, paused=True) == UnknownCoupon()
