"""A unit that comes back to a sold-out coupon is held for the first who waits, in the transaction that returns it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from uuid_utils.compat import uuid7

from claimsvc.domain import (
    PLAIN,
    AlreadyClaimed,
    AttributeRule,
    AuditEntry,
    Campaign,
    Claimed,
    ClaimOptions,
    ClaimState,
    Confirmed,
    EligibilityRules,
    JoinRequest,
    NewCode,
    NotEligible,
    Queued,
    QueueStop,
    SoldOut,
    StrategyName,
    Ticket,
    TicketState,
)
from claimsvc.postgres import Repositories
from claimsvc.tickets.joining import TicketDesk
from tests.support.storage import attempts, broken_sums, create_coupon, open_maintenance, remaining

_WAITING_LIST = replace(PLAIN, waiting_list_seconds=600)
_CHANGE = AuditEntry("test", "coupon.change", "coupon", "spring")


async def _codes(*codes: str) -> AsyncIterator[Sequence[NewCode]]:
    yield [NewCode(row, code) for row, code in enumerate(codes, 1)]


async def _sold_out(storage: Repositories, *users: str, campaign: Campaign = _WAITING_LIST) -> list[str]:
    """Create a coupon, and let these users claim all of it. Returns the ids of their claims."""
    await create_coupon(storage, "spring", len(users), StrategyName.REDLOCK, campaign)
    decided = await storage.admission.admit(attempts(*users))
    return [each.claim.id for each in decided if isinstance(each, Claimed)]


async def _wait(storage: Repositories, *users: str, options: ClaimOptions | None = None) -> list[object]:
    desk = TicketDesk(storage.tickets, storage.admission, waiting_limit=1000)
    return list(await asyncio.gather(*(desk.join("spring", user, options) for user in users)))


async def _queued(storage: Repositories, *users: str) -> list[Ticket]:
    return [each.ticket for each in await _wait(storage, *users) if isinstance(each, Queued)]


async def _cancel(storage: Repositories, claim_id: str) -> None:
    await storage.claims.cancel(claim_id, AuditEntry("test", "claim.cancel", "claim", claim_id))


async def _states(storage: Repositories, tickets: Sequence[Ticket]) -> list[TicketState]:
    found = {each.id: each.state for each in await storage.tickets.read([each.id for each in tickets])}
    return [found[each.id] for each in tickets]


async def test_a_cancelled_unit_is_held_for_the_first_who_waits_and_nobody_else_gets_it(
    storage: Repositories, database_url: str
) -> None:
    [ada, _] = await _sold_out(storage, "ada", "ben")
    waiting = await _queued(storage, "cleo", "dan")
    assert [each.position for each in waiting] == [1, 2]
    await _cancel(storage, ada)
    assert await remaining(storage) == 0
    assert await _states(storage, waiting) == [TicketState.CLAIMED, TicketState.WAITING]
    [first, second] = [await storage.tickets.ticket(each.id) for each in waiting]
    assert first is not None
    assert first.claim is not None
    assert (first.claim.user_id, first.claim.state) == ("cleo", ClaimState.HELD)
    assert second is not None
    assert (second.position, second.stopped) == (1, QueueStop.SOLD_OUT)
    assert await storage.admission.admit(attempts("eve")) == [SoldOut()]
    await storage.claims.confirm(first.claim.id)
    assert broken_sums(database_url) == []


async def test_units_that_are_added_go_to_those_who_wait_in_their_order(
    storage: Repositories, database_url: str
) -> None:
    await _sold_out(storage, "ada")
    waiting = await _queued(storage, *(f"user-{number}" for number in range(5)))
    await storage.campaigns.change("spring", {"amount": 4}, _CHANGE)
    assert await _states(storage, waiting) == [TicketState.CLAIMED] * 3 + [TicketState.WAITING] * 2
    assert await remaining(storage) == 0
    await storage.campaigns.change("spring", {"amount": 10}, _CHANGE)
    assert await _states(storage, waiting) == [TicketState.CLAIMED] * 5
    assert await remaining(storage) == 4
    [status] = await storage.tickets.statuses(["spring"])
    assert status.waiting == 0
    assert broken_sums(database_url) == []


async def test_a_hold_that_expires_passes_to_the_next(storage: Repositories, database_url: str) -> None:
    [ada] = await _sold_out(storage, "ada", campaign=replace(_WAITING_LIST, waiting_list_seconds=1))
    waiting = await _queued(storage, "ben", "cleo")
    await _cancel(storage, ada)
    assert await _states(storage, waiting) == [TicketState.CLAIMED, TicketState.WAITING]
    await asyncio.sleep(1.1)  # the hold
    async with open_maintenance(database_url) as maintenance:
        assert await maintenance.settle_holds("spring", limit=10) == 1
    assert await _states(storage, waiting) == [TicketState.CLAIMED] * 2
    assert await remaining(storage) == 0
    assert broken_sums(database_url) == []


async def test_a_claim_that_finds_a_hold_expired_does_not_get_the_unit_of_who_waits(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK, _WAITING_LIST)
    held = [replace(each, options=ClaimOptions(hold_seconds=1)) for each in attempts("ada")]
    assert [type(each) for each in await storage.admission.admit(held)] == [Claimed]
    waiting = await _queued(storage, "ben")
    await asyncio.sleep(1.1)  # the hold
    assert await storage.admission.admit(attempts("eve")) == [SoldOut()]
    assert await _states(storage, waiting) == [TicketState.CLAIMED]
    assert broken_sums(database_url) == []


async def test_who_would_be_refused_for_another_reason_does_not_wait(storage: Repositories) -> None:
    campaign = replace(_WAITING_LIST, rules=EligibilityRules((AttributeRule("age", at_least=18),)))
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK, campaign)
    grown_up = ClaimOptions(attributes={"age": 20})
    [claimed] = await storage.admission.admit([replace(each, options=grown_up) for each in attempts("ada")])
    assert isinstance(claimed, Claimed)
    [mine] = await _wait(storage, "ada", options=grown_up)
    [young] = await _wait(storage, "ben", options=ClaimOptions(attributes={"age": 17}))
    [other] = await _wait(storage, "cleo", options=grown_up)
    assert [type(each) for each in (mine, young, other)] == [AlreadyClaimed, NotEligible, Queued]


async def test_a_coupon_without_a_waiting_list_is_sold_out(storage: Repositories) -> None:
    await _sold_out(storage, "ada", campaign=PLAIN)
    assert await _wait(storage, "ben") == [SoldOut()]


async def test_two_units_that_come_back_at_once_go_to_two_who_wait(storage: Repositories, database_url: str) -> None:
    [ada, ben] = await _sold_out(storage, "ada", "ben")
    waiting = await _queued(storage, "cleo", "dan")
    async with asyncio.TaskGroup() as group:
        group.create_task(_cancel(storage, ada))
        group.create_task(_cancel(storage, ben))
    assert await _states(storage, waiting) == [TicketState.CLAIMED] * 2
    assert await remaining(storage) == 0
    assert broken_sums(database_url) == []


@pytest.mark.parametrize("waits_first", [True, False])
async def test_a_unit_that_returns_while_somebody_joins_is_not_lost(
    storage: Repositories, database_url: str, waits_first: bool
) -> None:
    [ada] = await _sold_out(storage, "ada")
    request = JoinRequest(str(uuid7()), "ben", is_eligible=True)
    work = [storage.tickets.join("spring", [request]), _cancel(storage, ada)]
    await asyncio.gather(*(work if waits_first else reversed(work)))
    started = await storage.tickets.dispatch("a", lease_seconds=5, freed=["spring"])
    ticket = await storage.tickets.ticket(request.ticket_id)
    assert ticket is not None
    assert ticket.state is TicketState.CLAIMED or len(started.started) == 1
    assert broken_sums(database_url) == []


async def test_who_waits_gets_a_code_with_the_unit(storage: Repositories, database_url: str) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK, _WAITING_LIST)
    entry = AuditEntry("test", "codes.add", "coupon", "spring")
    await storage.codes.add("spring", _codes("CODE-1"), entry, atomic=True)
    [ada] = await storage.admission.admit(attempts("ada"))
    assert isinstance(ada, Claimed)
    assert ada.claim.code == "CODE-1"
    waiting = await _queued(storage, "ben", "cleo", "dan")
    await storage.codes.add("spring", _codes("CODE-2", "CODE-3"), entry, atomic=True)
    assert await _states(storage, waiting) == [TicketState.CLAIMED] * 2 + [TicketState.WAITING]
    tickets = [await storage.tickets.ticket(each.id) for each in waiting[:2]]
    claims = [each.claim for each in tickets if each is not None and each.claim is not None]
    assert [each.code for each in claims] == [None, None]  # not shown while the unit is held
    confirmed = [await storage.claims.confirm(each.id) for each in claims]
    assert {each.claim.code for each in confirmed if isinstance(each, Confirmed)} == {"CODE-2", "CODE-3"}
    assert broken_sums(database_url) == []
