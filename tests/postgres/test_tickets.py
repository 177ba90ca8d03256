"""Joining a queue, leaving it, and the places in it: whatever is done at the same time."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    AuditEntry,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    Ended,
    KeyReused,
    LeftQueue,
    NotStarted,
    Paused,
    Queue,
    Queued,
    QueueFull,
    Replayed,
    SoldOut,
    TicketStarted,
    TicketState,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.ports import Joined
from claimsvc.postgres import Repositories
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.tickets import PostgresTickets
from claimsvc.tickets.joining import TicketDesk
from tests.support.databases import administrate
from tests.support.storage import attempts, kinds, open_maintenance, open_storage
from tests.support.tickets import (
    QUICK,
    broken_queues,
    claim,
    create_queued,
    dispatch,
    join,
    joined,
    keyed,
    started,
    state,
    wish,
)

ENTRY = AuditEntry("test", "coupon.change", "coupon", "spring")


async def test_who_asks_again_keeps_the_ticket_and_the_place(storage: Repositories, database_url: str) -> None:
    await create_queued(storage)
    ada, bob = await joined(storage, "ada", "bob")
    assert [each.position for each in (ada, bob)] == [1, 2]
    assert await storage.tickets.read([ada.id, bob.id]) == [ada, bob]
    again = await joined(storage, "bob", "eve", "ada", "ada")
    assert [each.id for each in again] == [bob.id, again[1].id, ada.id, ada.id]
    assert [each.position for each in again] == [2, 3, 1, 1]
    assert broken_queues(database_url) == []


async def test_users_of_any_name_join_together_and_each_with_its_own_options(storage: Repositories) -> None:
    """A batch is sent as lines."""
    await create_queued(storage)
    usual = ["plain", "\\N", "null", "a,b", '"{}"', "\t"]
    for users in (usual, ["ada\nbob", *usual]):
        of_user = {f"{len(users)}-{user}": {"name": user} if n % 2 else {} for n, user in enumerate(users)}
        requests = [wish(user, ClaimOptions(attributes=each) if each else None) for user, each in of_user.items()]
        found = await storage.tickets.join("spring", requests)
        assert [each.ticket.user_id for each in found if isinstance(each, Queued)] == list(of_user)
        assert {each.user_id: each.options.attributes for each in await started(storage)} == of_user


async def test_who_asks_on_several_connections_at_once_has_one_ticket(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one)
        for _ in range(5):
            tickets = await asyncio.gather(*(joined(each, "ada", "bob") for each in (one, other) for _ in range(3)))
            assert len({ada.id for ada, _ in tickets}) == len({bob.id for _, bob in tickets}) == 1
    assert administrate(database_url, "SELECT count(*) FROM tickets") == [(2,)]


async def test_the_first_that_join_do_so_one_after_another_though_there_is_no_queue_yet(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        for number in range(12):
            name = f"coupon-{number}"
            await create_queued(one, name=name)
            found = await asyncio.gather(
                *(joined(each, "ada", f"user-{n}", on=name) for n, each in enumerate((one, other, one, other)))
            )
            assert len({ada.id for ada, _ in found}) == 1
            assert sorted(own.position or 0 for _, own in found) == [2, 3, 4, 5]
    assert broken_queues(database_url) == []


@pytest.mark.parametrize("batch", [1, 7])
async def test_no_more_join_at_once_than_the_queue_is_long(database_url: str, batch: int) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one, 1000, replace(QUICK, max_length=20))
        users = [f"user-{number}" for number in range(42)]
        batches = [users[first : first + batch] for first in range(0, len(users), batch)]

        async def join_some(storage: Repositories, batches: list[list[str]]) -> list[Joined | None]:
            return [outcome for each in batches for outcome in await join(storage, *each)]

        stores = (one, other, one, other)
        found = await asyncio.gather(*(join_some(each, batches[n::4]) for n, each in enumerate(stores)))
        outcomes = [outcome for each in found for outcome in each]
        tickets = [each.ticket for each in outcomes if isinstance(each, Queued)]
        assert len(tickets) == 20
        assert sum(isinstance(each, QueueFull) for each in outcomes) == 22
        assert sorted(each.position or 0 for each in tickets) == list(range(1, 21))
        # A place is free at once when one is started.
        begun = await started(one)
        assert len(begun) == 20
        more = await join(other, *(f"more-{number}" for number in range(21)))
        assert kinds(more) == ["Queued"] * 20 + ["QueueFull"]
    assert broken_queues(database_url) == []


async def test_more_than_there_are_units_left_do_not_wait(storage: Repositories) -> None:
    await create_queued(storage, 3)
    assert kinds(await join(storage, "a", "b", "c", "d")) == ["Queued"] * 3 + ["QueueFull"]
    first = await started(storage)
    # Started ones may get the units.
    assert kinds(await join(storage, "d")) == ["QueueFull"]
    assert kinds([*await claim(storage, *first[:1])]) == ["Claimed"]
    assert kinds(await join(storage, "d")) == ["QueueFull"]


async def outcome_of(storage: Repositories, user_id: str, on: str = "spring") -> ClaimOutcome:
    desk = TicketDesk(storage.tickets, storage.admission, waiting_limit=10)
    return await desk.join(on, user_id)


async def test_who_would_be_refused_at_once_gets_that_and_no_ticket(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, 1, name="taken")
    [claimed] = await storage.admission.admit(attempts("ada", on="taken"))
    assert isinstance(claimed, Claimed)
    assert await outcome_of(storage, "ada", "taken") == AlreadyClaimed(claimed.claim)
    assert await outcome_of(storage, "bob", "taken") == SoldOut()
    await create_queued(storage, name="paused", paused=True)
    assert await outcome_of(storage, "ada", "paused") == Paused()
    now = datetime.now(UTC)
    await create_queued(storage, name="over", ends_at=now - timedelta(days=1))
    assert await outcome_of(storage, "ada", "over") == Ended()
    await create_queued(storage, name="later", starts_at=now + timedelta(days=1))
    assert isinstance(await outcome_of(storage, "ada", "later"), NotStarted)
    assert await outcome_of(storage, "ada", "nowhere") == UnknownCoupon()
    assert administrate(database_url, "SELECT count(*) FROM tickets") == [(0,)]


async def test_who_may_hold_several_units_joins_until_they_have_all(storage: Repositories) -> None:
    await create_queued(storage, per_user_limit=2)
    for _ in range(2):
        await joined(storage, "ada")
        assert kinds([*await claim(storage, *await started(storage))]) == ["Claimed"]
    assert isinstance(await outcome_of(storage, "ada"), AlreadyClaimed)


async def test_who_holds_the_last_unit_may_wait_to_confirm_it(storage: Repositories) -> None:
    await create_queued(storage, 2)
    [hold, other] = attempts("ada", "bob")
    held = [replace(hold, options=ClaimOptions(hold_seconds=60)), other]
    assert kinds(await storage.admission.admit(held)) == ["Claimed"] * 2
    assert await outcome_of(storage, "eve") == SoldOut()
    # In one batch with somebody who needs a unit.
    assert [type(each) for each in await join(storage, "eve", "ada")] == [type(None), Queued]
    [ticket] = await started(storage)
    [confirmed] = await claim(storage, ticket)
    assert type(confirmed).__name__ == "HoldContinued"
    assert confirmed.claim.id == hold.claim_id
    found = await storage.tickets.ticket(ticket.lease.ticket_id)
    assert found is not None
    assert (found.state, found.claim) == (TicketState.CLAIMED, confirmed.claim)


async def test_a_key_gives_the_same_ticket_and_is_refused_with_another_body(storage: Repositories) -> None:
    await create_queued(storage)
    await create_queued(storage, name="summer")
    first = await storage.tickets.join("spring", [wish("ada", keyed("k"))])
    [queued] = first
    assert isinstance(queued, Queued)
    again = await storage.tickets.join(
        "spring", [wish("ada", keyed("k", request_id="2")), wish("eve", keyed("k", "other")), wish("bob", keyed("l"))]
    )
    assert isinstance(again[0], Replayed)
    assert isinstance(again[0].answer, Queued)
    assert again[0].answer.ticket.id == queued.ticket.id
    assert again[1] == KeyReused()
    assert isinstance(again[2], Queued)
    assert again[2].ticket.position == 2
    # The key is of one request, whatever the coupon.
    assert await storage.tickets.join("summer", [wish("ada", keyed("k", "of summer"))]) == [KeyReused()]
    # The answer outlives the ticket.
    await storage.tickets.leave(queued.ticket.id)
    [later] = await storage.tickets.join("spring", [wish("ada", keyed("k"))])
    assert isinstance(later, Replayed)


async def test_a_key_that_comes_twice_in_a_batch_or_on_two_connections_has_one_effect(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one)
        await create_queued(one, name="summer")
        twice = [wish("ada", keyed("k", "ada")), wish("ada", keyed("k", "ada", "2")), wish("bob", keyed("k", "bob"))]
        outcomes = await one.tickets.join("spring", twice)
        assert [type(each) for each in outcomes] == [Queued, Replayed, KeyReused]
        assert administrate(database_url, "SELECT user_id FROM tickets") == [("ada",)]
        both = await asyncio.gather(
            *(
                store.tickets.join(name, [wish("eve", keyed(f"k-{number}", name))])
                for number in range(10)
                for store, name in ((one, "spring"), (other, "summer"))
            )
        )
        assert sum(isinstance(each, KeyReused) for [each] in both) == 10
    assert broken_queues(database_url) == []


class LosesCommits:
    """Loses the connection after each first commit, so that it is in doubt; `between` happens before the next try."""

    def __init__(self, storage: Repositories, between: object = None) -> None:
        tickets = storage.tickets
        assert isinstance(tickets, PostgresTickets)
        self._database = tickets._database
        self.between = between
        self.tickets = PostgresTickets(self)  # type: ignore[arg-type]

    async def run_transaction(self, work: object, *, timeout_seconds: float | None = None) -> object:
        await self._database.run_transaction(work)  # type: ignore[arg-type]
        if self.between is not None:
            await self.between()  # type: ignore[operator]

        async def again(driver: Driver, in_doubt: bool) -> object:
            return await work(driver, True)  # type: ignore[operator]

        return await self._database.run_transaction(again)

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)


@pytest.mark.parametrize("options", [None, keyed("k")], ids=["plain", "keyed"])
async def test_a_commit_in_doubt_is_recognized_also_if_the_ticket_has_ended_meanwhile(
    storage: Repositories, database_url: str, options: ClaimOptions | None
) -> None:
    await create_queued(storage, queue=replace(QUICK, max_length=1))
    await join(storage, "nobody")
    for ticket in await started(storage):
        await claim(storage, ticket)

    async def ends() -> None:
        for (left,) in administrate(database_url, "SELECT id::text FROM tickets WHERE state = 'waiting'"):
            assert isinstance(await storage.tickets.leave(str(left)), LeftQueue)

    request = wish("ada", options)
    [outcome] = await LosesCommits(storage).tickets.join("spring", [request])
    assert isinstance(outcome, Queued)
    assert outcome.ticket.id == request.ticket_id
    await storage.tickets.leave(request.ticket_id)
    request = wish("ada", options and keyed("l"))
    [outcome] = await LosesCommits(storage, ends).tickets.join("spring", [request])
    assert isinstance(outcome, Queued)
    assert outcome.ticket.id == request.ticket_id
    assert administrate(database_url, "SELECT count(*) FROM tickets WHERE user_id = 'ada'") == [(2,)]
    assert isinstance(await LosesCommits(storage).tickets.leave(request.ticket_id), LeftQueue)


async def test_a_purged_coupon_that_is_made_anew_has_a_new_queue(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, queue=replace(QUICK, concurrency=1))
    old = await joined(storage, "ada", "bob", "eve")
    [begun] = await started(storage)
    [claimed] = await claim(storage, begun)
    await started(storage, "spring")
    administrate(database_url, "UPDATE campaigns SET ends_at = now() - interval '10 days'")
    async with open_maintenance(database_url) as maintenance:
        while (await maintenance.purge_coupon("spring", for_days=9, limit=1, actor="job:purge")).rows:
            pass
    for table in ("coupons", "queues", "ticket_blocks"):
        assert administrate(database_url, f"SELECT count(*) FROM {table}") == [(0,)]
    assert [await state(storage, each) for each in old] == ["claimed", "expired", "expired"]
    assert await join(storage, "ada") == [UnknownCoupon()]
    await create_queued(storage)
    new = await joined(storage, "bob", "ada")
    assert [each.position for each in new] == [1, 2]
    assert not {each.id for each in new} & {each.id for each in old}
    assert isinstance(claimed, Claimed)
    assert [each.user_id for each in await started(storage)] == ["bob", "ada"]
    assert broken_queues(database_url) == []


async def test_a_coupon_that_an_earlier_version_purged_leaves_nobody_waiting_in_the_new_queue(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    await joined(storage, "ada", "bob")
    administrate(database_url, "DELETE FROM coupons")
    await create_queued(storage)
    [ada] = await joined(storage, "ada")
    assert ada.position == 1
    assert broken_queues(database_url) == []


async def test_whoever_leaves_makes_way_for_those_behind(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, queue=replace(QUICK, rate_per_second=1))
    tickets = await joined(storage, *(f"user-{number}" for number in range(10)))
    left = await storage.tickets.leave(tickets[4].id)
    assert isinstance(left, LeftQueue)
    assert (left.ticket.state, left.ticket.position) == (TicketState.LEFT, None)
    assert await storage.tickets.leave(tickets[4].id) == replace(left, is_new=False)
    found = {each.id: each.position for each in await storage.tickets.read([each.id for each in tickets])}
    assert [found[each.id] for each in tickets] == [1, 2, 3, 4, None, 5, 6, 7, 8, 9]
    # Who comes back waits behind the others.
    assert [each.position for each in await joined(storage, "user-4")] == [10]
    [begun] = await started(storage)
    refused = await storage.tickets.leave(begun.lease.ticket_id)
    assert isinstance(refused, TicketStarted)
    assert refused.ticket.position == 0
    await claim(storage, begun)
    assert isinstance(await storage.tickets.leave(begun.lease.ticket_id), TicketStarted)
    assert await storage.tickets.leave(wish("").ticket_id) == UnknownTicket()
    assert broken_queues(database_url) == []


async def test_one_ticket_is_left_or_started_never_both(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one)
        tickets = await joined(one, *(f"user-{number}" for number in range(60)))
        chosen = random.Random(1).sample(tickets, 30)
        leaving = asyncio.gather(*(one.tickets.leave(each.id) for each in chosen))
        begun, left = await asyncio.gather(dispatch(other), leaving)
        more = await dispatch(other)
        ids = {each.lease.ticket_id for each in (*begun.started, *more.started)}
        for each in left:
            assert isinstance(each, LeftQueue | TicketStarted)
            assert (each.ticket.id in ids) == isinstance(each, TicketStarted)
    assert broken_queues(database_url) == []


@pytest.mark.parametrize("seed", range(4))
async def test_places_are_those_of_a_list_whatever_joins_leaves_and_starts(
    storage: Repositories, database_url: str, seed: int
) -> None:
    """Over several blocks of places. No position ever grows."""
    chance = random.Random(seed)
    await create_queued(storage, 100_000, Queue(1000, 1000, 600, 10_000))
    model: list[str] = []
    positions: dict[str, int] = {}
    for step in range(25):
        wanted = chance.choice(["join", "join", "leave", "start"])
        if wanted == "join":
            tickets = await joined(storage, *(f"{step}-{number}" for number in range(chance.randrange(1, 120))))
            assert [each.position for each in tickets] == [len(model) + 1 + n for n in range(len(tickets))]
            model += [each.id for each in tickets]
        elif wanted == "leave":
            for id_ in chance.sample(model, min(len(model), chance.randrange(10))):
                await storage.tickets.leave(id_)
                model.remove(id_)
        else:
            concurrency = chance.choice([1, 5, 300])
            queue = {"queue": Queue(1000, concurrency, 600, 10_000)}
            await storage.campaigns.change("spring", queue, ENTRY)
            ids = [each.lease.ticket_id for each in await started(storage)]
            assert model[: len(ids)] == ids
            model = model[len(ids) :]
        looked = chance.sample(model, min(len(model), 40))
        for ticket in await storage.tickets.read(looked):
            assert ticket.position == model.index(ticket.id) + 1
            assert ticket.position <= positions.get(ticket.id, ticket.position)
            positions[ticket.id] = ticket.position
        assert broken_queues(database_url) == []


async def test_a_ticket_is_read_for_a_day_after_its_end_and_a_dead_one_until_it_is_dealt_with(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    [ada, bob] = await joined(storage, "ada", "bob")
    await storage.tickets.leave(ada.id)
    administrate(database_url, "UPDATE tickets SET ended_at = now() - interval '23 hours' WHERE user_id = 'ada'")
    assert await state(storage, ada) == "left"
    administrate(database_url, "UPDATE tickets SET ended_at = now() - interval '25 hours' WHERE user_id = 'ada'")
    assert await state(storage, ada) == "unknown"
    assert await storage.tickets.leave(ada.id) == UnknownTicket()
    administrate(
        database_url, "UPDATE tickets SET state = 'dead', ended_at = now() - interval '9 days' WHERE user_id = 'bob'"
    )
    assert await state(storage, bob) == "dead"


async def test_the_options_of_a_claim_wait_with_it(storage: Repositories) -> None:
    await create_queued(storage)
    options = ClaimOptions(
        hold_seconds=60, attributes={"age": 18, "of": "KR"}, token={"sub": "ada", "groups": ("a", "b")}
    )
    [queued] = await storage.tickets.join("spring", [wish("ada", options)])
    assert isinstance(queued, Queued)
    [ticket] = await started(storage)
    assert ticket.options.hold_seconds == 60
    assert ticket.options.attributes == options.attributes
    assert {name: tuple(each) if isinstance(each, list) else each for name, each in ticket.options.token.items()} == (
        options.token
    )
    assert isinstance(Attempt("x", "spring", "ada", ticket.options).options, ClaimOptions)
