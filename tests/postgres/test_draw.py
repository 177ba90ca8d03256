"""A draw: its order follows from a seed whose hash was published before, and anybody can recompute it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from uuid_utils.compat import uuid7

from claimsvc.domain import (
    PLAIN,
    AuditEntry,
    Draw,
    JoinRequest,
    NoDraw,
    Queue,
    Queued,
    QueueFull,
    QueueOrder,
    StrategyName,
    Ticket,
    draw_entry,
    draw_order,
    seed_hash,
)
from claimsvc.postgres import Repositories
from tests.support.waiting import until

_DRAWN = Queue(1000, 1000, 60, 500, QueueOrder.DRAW)


async def _create(storage: Repositories, *, starts_in_seconds: float, queue: Queue = _DRAWN, amount: int = 100) -> None:
    starts_at = datetime.now(UTC) + timedelta(seconds=starts_in_seconds)
    campaign = replace(PLAIN, starts_at=starts_at, queue=queue)
    await storage.campaigns.create("spring", amount, StrategyName.REDLOCK, campaign, actor="test")


async def _join(storage: Repositories, *users: str) -> list[Ticket]:
    joined = await storage.tickets.join("spring", [JoinRequest(str(uuid7()), user) for user in users])
    return [each.ticket for each in joined if isinstance(each, Queued)]


async def _draw(storage: Repositories) -> Draw:
    found = await storage.tickets.draw("spring", after=0, limit=1000)
    assert isinstance(found, Draw)
    return found


async def _start_now(storage: Repositories) -> None:
    started = {"starts_at": datetime.now(UTC)}
    await storage.campaigns.change("spring", started, AuditEntry("test", "coupon.change", "coupon", "spring"))


async def test_anybody_can_recompute_the_order_from_the_seed(storage: Repositories) -> None:
    await _create(storage, starts_in_seconds=60, amount=1000)
    before = await _draw(storage)
    assert (before.seed, before.drawn_at, before.entries) == (None, None, ())
    tickets = await _join(storage, *(f"user-{number}" for number in range(400)))
    assert {(each.position, each.eta_seconds, each.stopped) for each in tickets} == {(None, None, "not-started")}
    assert {each.position for each in await storage.tickets.read([each.id for each in tickets])} == {None}

    await _start_now(storage)
    await storage.tickets.dispatch("a", lease_seconds=5)
    late = await _join(storage, "late-1", "late-2")
    assert [each.position for each in late] == [401, 402]
    drawn = await _draw(storage)
    assert drawn.seed is not None
    assert seed_hash(drawn.seed) == drawn.seed_hash == before.seed_hash
    assert list(drawn.entries) == draw_order(drawn.seed, [draw_entry(each.id) for each in tickets])

    places = {draw_entry(each.id): each.position for each in await storage.tickets.read([each.id for each in tickets])}
    assert [places[entry] for entry in drawn.entries] == list(range(1, 401))
    started = await storage.tickets.dispatch("a", lease_seconds=5)
    assert [draw_entry(each.lease.ticket_id) for each in started.started] == list(drawn.entries[: len(started.started)])


async def test_a_draw_is_for_more_than_there_are_units_but_not_for_more_than_the_queue_is_long(
    storage: Repositories,
) -> None:
    await _create(storage, starts_in_seconds=60, queue=replace(_DRAWN, max_length=5), amount=2)
    joined = await storage.tickets.join("spring", [JoinRequest(str(uuid7()), f"user-{each}") for each in range(7)])
    assert [type(each) for each in joined] == [Queued] * 5 + [QueueFull] * 2


async def test_who_joins_after_the_start_comes_after_those_who_were_drawn(storage: Repositories) -> None:
    await _create(storage, starts_in_seconds=0.5)
    early = await _join(storage, *(f"early-{number}" for number in range(20)))
    await asyncio.sleep(0.6)  # the start
    late = await _join(storage, "late-1", "late-2")
    await storage.tickets.dispatch("a", lease_seconds=5)
    positions = {each.id: each.position for each in await storage.tickets.read([each.id for each in late])}
    assert [positions[each.id] for each in late] == [21, 22]
    assert set((await _draw(storage)).entries) == {draw_entry(each.id) for each in early}


async def test_two_instances_draw_once(storage: Repositories) -> None:
    await _create(storage, starts_in_seconds=60)
    tickets = await _join(storage, *(f"user-{number}" for number in range(50)))
    await _start_now(storage)

    async def is_started() -> bool:
        passes = await asyncio.gather(*(storage.tickets.dispatch(each, lease_seconds=5) for each in "ab"))
        return any(each.started for each in passes)

    await until(is_started, "tickets are started")
    drawn = await _draw(storage)
    assert drawn.seed is not None
    assert list(drawn.entries) == draw_order(drawn.seed, [draw_entry(each.id) for each in tickets])


async def test_the_seed_stays_when_the_coupon_changes(storage: Repositories) -> None:
    await _create(storage, starts_in_seconds=60)
    before = await _draw(storage)
    entry = AuditEntry("test", "coupon.change", "coupon", "spring")
    await storage.campaigns.change("spring", {"queue": replace(_DRAWN, max_length=7)}, entry)
    assert await _draw(storage) == before


async def test_a_coupon_without_a_draw_has_none(storage: Repositories) -> None:
    await _create(storage, starts_in_seconds=60, queue=replace(_DRAWN, order=QueueOrder.FIFO))
    assert await storage.tickets.draw("spring", after=0, limit=10) == NoDraw()
