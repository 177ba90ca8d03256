"""The scenarios of queues against a small service in memory: they pass the honest one, and name what mutants do."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from aiohttp import web

from stress_test.history import QueuePlan
from stress_test.runner import Run, Target, run_scenario
from stress_test.scenarios import SCENARIOS, Sizes
from tests.stress_test.honest_service import ADMIN_KEY, Coupon, problem, serving, stress
from tests.stress_test.queue_service import Line, QueueService, Ticket

# Of so many who ask at once some are refused, and the rest takes a good second.
QUEUE = Sizes(claims=60, quota=40, queue=QueuePlan(20, 3, 10, 30))
SCARCE = Sizes(claims=60, quota=20, queue=QueuePlan(20, 3, 10, 30))
DRAW = Sizes(claims=30, quota=20, queue=QueuePlan(15, 3, 10, 100, "draw"), late=10, starts_in_seconds=1.0)


class TakesOneTooMany(QueueService):
    def may_join(self, line: Line, coupon: Coupon) -> bool:
        return len(line.waiting) <= int(line.settings["max_length"])


class IsFullTooEarly(QueueService):
    def may_join(self, line: Line, coupon: Coupon) -> bool:
        return len(line.tickets) < int(line.settings["max_length"]) - 1


class LetsWaitForMoreThanThereAre(QueueService):
    def may_join(self, line: Line, coupon: Coupon) -> bool:
        return len(line.waiting) < int(line.settings["max_length"])


class KnowsNobodyAgain(QueueService):
    def ticket_of(self, line: Line, user: str) -> Ticket | None:
        return None


class SaysSoldOutTooEarly(QueueService):
    def join(self, line: Line, coupon: Coupon, name: str, user: str) -> web.StreamResponse:
        return problem(409, "sold-out") if len(line.tickets) == 5 else super().join(line, coupon, name, user)


class StartsOneTooMany(QueueService):
    def allowed(self, line: Line, now: datetime) -> int:
        return super().allowed(line, now) + 1


class ServesTheLastFirst(QueueService):
    def next(self, line: Line) -> Ticket:
        return line.waiting[-1]


class GivesNothing(QueueService):
    """Says of the first that they have claimed, and records no claim."""

    def end(self, ticket: Ticket, coupon: Coupon) -> None:
        super().end(ticket, coupon)
        if len(coupon.claims) == 1:
            coupon.claims.clear()


class ForgetsToDraw(QueueService):
    def draw(self, early: list[Ticket]) -> list[Ticket]:
        return early


class DrawsByAnotherSeed(QueueService):
    def seed(self) -> bytes:
        return bytes(32)


class LeavesOneOutOfTheDraw(QueueService):
    def draw(self, early: list[Ticket]) -> list[Ticket]:
        return super().draw(early)[:-1]


async def _run(service: QueueService, sizes: Sizes, instances: int = 1) -> Run:
    async with serving(service, instances) as urls:
        scenario = SCENARIOS["queue" if sizes.starts_in_seconds is None else "draw"]
        return await run_scenario(scenario, sizes, Target(tuple(urls), ADMIN_KEY, grace_seconds=1.0))


async def test_an_honest_queue_passes_over_two_instances_and_is_told_of() -> None:
    run = await _run(QueueService(), QUEUE, instances=2)
    assert run.violations == ()
    [tickets] = run.rounds[0].tickets
    assert tickets is not None
    assert {each.state for each in tickets.listed} == {"claimed"}
    assert 30 <= len(tickets.listed) <= 40
    assert all(len(readings) > 1 for readings in tickets.readings.values())
    assert any(note.startswith("tickets: ") and "at most 20 within a second" in note for note in run.rounds[0].notes)


async def test_no_more_join_than_there_are_units() -> None:
    run = await _run(QueueService(), SCARCE)
    assert run.violations == ()
    [tickets] = run.rounds[0].tickets
    assert tickets is not None
    assert len(tickets.listed) == 20


async def test_who_is_not_started_in_time_expires() -> None:
    run = await _run(QueueService(), Sizes(claims=30, quota=30, queue=QueuePlan(5, 3, 1, 30)))
    assert run.violations == ()
    [tickets] = run.rounds[0].tickets
    assert tickets is not None
    assert {each.state for each in tickets.listed} == {"claimed", "expired"}


async def test_an_honest_draw_passes_and_its_order_is_recomputed() -> None:
    run = await _run(QueueService(), DRAW)
    assert run.violations == ()
    [tickets] = run.rounds[0].tickets
    assert tickets is not None
    assert tickets.draw is not None
    assert (len(tickets.draw.after.entries), tickets.draw.before.seed) == (30, None)
    assert len([each for each in tickets.draw.places if each.state == "waiting"]) > 3
    assert {each.state for each in tickets.listed} == {"claimed", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "sizes", "named"),
    [
        (TakesOneTooMany, QUEUE, {"never-more-wait-than-allowed"}),
        (IsFullTooEarly, QUEUE, {"as-many-join-as-may", "refusals-were-due"}),
        (LetsWaitForMoreThanThereAre, SCARCE, {"nobody-waits-for-units-that-are-not-there"}),
        (KnowsNobodyAgain, QUEUE, {"one-ticket-per-user"}),
        (SaysSoldOutTooEarly, QUEUE, {"refusals-were-due"}),
        (StartsOneTooMany, QUEUE, {"concurrency-holds"}),
        (StartsOneTooMany, Sizes(claims=30, quota=30, queue=QueuePlan(10, 30, 10, 30)), {"pace-holds"}),
        (ServesTheLastFirst, QUEUE, {"starts-are-in-order"}),
        (GivesNothing, SCARCE, {"claimed-tickets-are-the-claims", "stock-adds-up"}),
        (ForgetsToDraw, DRAW, {"entries-are-the-early", "places-are-as-drawn", "starts-are-in-order"}),
        (DrawsByAnotherSeed, DRAW, {"seed-was-promised", "entries-are-the-early"}),
        (LeavesOneOutOfTheDraw, DRAW, {"entries-are-the-early"}),
    ],
)
async def test_what_a_mutant_does_is_named(mutant: type[QueueService], sizes: Sizes, named: set[str]) -> None:
    run = await _run(mutant(), sizes)
    assert named <= {each.expectation for each in run.violations}, run.violations


async def test_the_command_line_tells_of_queues(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--claims", "30", "--quota", "10", "--rate", "20", "--concurrency", "3", "--max-length", "20"]
    async with serving(QueueService()) as [url]:
        ended = await stress("queue", *options, "--json", str(file), URL=url, CLAIMSVC_ADMIN_KEY=ADMIN_KEY)
    assert (ended.status, ended.err) == (0, ""), ended.out
    assert "queue: 33 claims on coupon queue-" in ended.out
    assert "note, round 1: tickets: 10 (claimed 10); started over" in ended.out
    result = json.loads(file.read_text())
    assert result["parameters"]["queue"] == {
        "rate_per_second": 20, "concurrency": 3, "max_wait_seconds": 10, "max_length": 20, "order": "fifo",
    }  # fmt: skip
    assert (result["passed"], result["rounds"][0]["tickets"]) == (True, [{"claimed": 10}])


async def test_a_service_without_queues_fails_the_run_by_a_violation() -> None:
    class WithoutTickets(QueueService):
        async def list_tickets(self, request: web.Request) -> web.StreamResponse:
            return problem(404, "no-such-route")

    run = await _run(WithoutTickets(), SCARCE)
    assert [each.expectation for each in run.violations] == ["read-back"]
