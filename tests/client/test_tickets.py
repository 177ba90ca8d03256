"""Claims that wait: joining a queue, waiting for the end by a stream or by asking, leaving, and giving up."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from claimsvc.client import (
    AlreadyClaimed,
    Claim,
    ClaimClient,
    Claimed,
    Coupon,
    Dead,
    Expired,
    ForbiddenError,
    Left,
    NotStarted,
    Queued,
    QueueFull,
    Refused,
    Retries,
    SoldOut,
    Ticket,
    TicketStarted,
    UnavailableError,
    UnexpectedAnswerError,
    UnknownTicket,
    sending,
)
from claimsvc.client import tickets as module
from claimsvc.client.events import Event, EventParser
from claimsvc.http.resources.tickets import watching
from tests.client.scripted import (
    CLAIM,
    COUPON,
    TICKET,
    Say,
    Scripted,
    cuts,
    hangs,
    problem,
    refuses,
    says,
    scripted,
    streams,
)
from tests.support.waiting import until

_AT = datetime(2026, 11, 21, 2, 28, 17, 951077, tzinfo=UTC)
_CLAIM = Claim(CLAIM["id"], "spring", "ada", "active", _AT)
_PATH = f"/api/tickets/{TICKET['id']}"
_FAST = Retries(first_pause_seconds=0.01, longest_pause_seconds=0.01)
_GONE = {"position": None, "ahead": None, "eta_seconds": None, "ended_at": "2026-11-21T02:28:20Z"}


def waits(position: int, **more: object) -> dict[str, object]:
    return TICKET | {"position": position, "ahead": position - 1} | more


def ended(state: str, **outcome: object) -> dict[str, object]:
    return TICKET | _GONE | {"state": state, "outcome": outcome or None}


CLAIMED = ended("claimed", claim=CLAIM)


@asynccontextmanager
async def joined(*then: Say, **options: Any) -> AsyncIterator[tuple[Ticket, Scripted]]:
    """A ticket, of a service that says this from then on."""
    async with (
        scripted(says(202, TICKET), *then) as service,
        ClaimClient(service.url, **{"retries": _FAST, **options}) as client,
    ):
        ticket = await client.claim_async(user_id="ada", coupon_name="spring")
        assert isinstance(ticket, Ticket)
        yield ticket, service


def asked_of(service: Scripted) -> list[str]:
    return [f"{asked.method} {asked.path.removeprefix(_PATH)}" for asked in service.asked[1:]]


async def test_a_claim_that_may_wait_says_so_and_is_a_ticket() -> None:
    async with joined() as (ticket, service):
        assert (ticket.id, ticket.coupon_name, ticket.user_id) == (TICKET["id"], "spring", "ada")
        assert (ticket.state, ticket.position, ticket.eta_seconds, ticket.stopped) == ("waiting", 3, 4.0, None)
        assert (ticket.joined_at, ticket.seen.ahead, ticket.end) == (_AT.replace(microsecond=0), 2, None)
    [asked] = service.asked
    assert (asked.headers["Prefer"], asked.json()) == ("respond-async", {"user_id": "ada", "coupon_name": "spring"})
    assert asked.headers["Idempotency-Key"]


async def test_a_claim_of_a_coupon_with_a_queue_is_an_outcome_with_its_ticket() -> None:
    async with scripted(says(202, TICKET, X_Request_ID="r-7")) as service, ClaimClient(service.url) as client:
        outcome = await client.claim(user_id="ada", coupon_name="spring")
        assert isinstance(outcome, Queued)
        assert (outcome.ticket.position, outcome.request_id) == (3, "r-7")
    assert "Prefer" not in service.asked[0].headers


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (says(201, CLAIM), Claimed(_CLAIM)),
        (refuses("queue-full", 429, retry_after="7"), QueueFull(7.0)),
        (refuses("sold-out", 409), SoldOut()),
        (refuses("already-claimed", 409, claim=CLAIM), AlreadyClaimed(_CLAIM)),
    ],
)
async def test_who_need_not_or_may_not_wait_is_told_at_once(say: Say, expected: object) -> None:
    async with scripted(say) as service, ClaimClient(service.url) as client:
        assert await client.claim_async(user_id="ada", coupon_name="spring") == expected
    assert len(service.asked) == 1


async def test_a_ticket_is_found_again_by_its_id() -> None:
    async with scripted(says(200, waits(2))) as service, ClaimClient(service.url) as client:
        ticket = await client.ticket(str(TICKET["id"]))
        assert isinstance(ticket, Ticket)
        assert ticket.position == 2
    async with scripted(refuses("unknown-ticket", 404)) as service, ClaimClient(service.url) as client:
        assert await client.ticket("a/b") == UnknownTicket()
    assert service.asked[0].path == "/api/tickets/a%2Fb"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (CLAIMED, Claimed(_CLAIM)),
        (ended("refused", problem=problem("sold-out", 409)), SoldOut()),
        (ended("refused", problem=problem("already-claimed", 409, claim=CLAIM)), AlreadyClaimed(_CLAIM)),
        (
            ended("refused", problem=problem("not-started", 409, starts_at="2026-11-27T00:00:00Z")),
            NotStarted(datetime(2026, 11, 27, tzinfo=UTC), None),
        ),
        (ended("expired"), Expired()),
        (ended("left"), Left()),
        (ended("dead"), Dead()),
    ],
)
async def test_each_end_is_an_outcome_of_its_own_type(document: Mapping[str, object], expected: object) -> None:
    async with joined(streams(waits(2), waits(1), TICKET | {"state": "started", "position": 0}, document)) as (
        ticket,
        service,
    ):
        assert await ticket.wait() == expected
        assert (ticket.end, ticket.state, ticket.position) == (expected, document["state"], None)
        # It is known from now on.
        assert await ticket.wait() == expected
    assert asked_of(service) == ["GET /events"]
    assert service.asked[1].headers["Accept"] == "text/event-stream"


async def test_a_refusal_without_a_type_of_its_own_is_its_problem() -> None:
    async with joined(streams(ended("refused", problem=problem("not-today", 403)))) as (ticket, _):
        end = await ticket.wait()
    assert isinstance(end, Refused)
    assert (end.problem.slug, end.problem.status) == ("not-today", 403)


async def test_the_place_is_known_while_it_is_waited_for() -> None:
    async with joined(streams(waits(2), then=hangs)) as (ticket, _):
        waiting = asyncio.create_task(ticket.wait(leave_if_cancelled=False))
        await until(lambda: ticket.position == 2, "the ticket is watched")
        assert ticket.end is None
        waiting.cancel()
        await asyncio.wait([waiting])


@pytest.mark.parametrize("interruption", [None, cuts], ids=["ends", "is cut"])
async def test_an_interrupted_stream_goes_on_where_it_was(interruption: Say | None) -> None:
    parts = [streams(waits(3 - number), then=interruption) for number in range(3)]
    async with joined(*parts, streams(CLAIMED)) as (ticket, service):
        assert await ticket.wait() == Claimed(_CLAIM)
    assert asked_of(service) == ["GET /events"] * 4
    assert [asked.headers.get("Last-Event-ID") for asked in service.asked[1:]] == [None, "e-0", "e-0", "e-0"]


async def test_a_stream_that_is_silent_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than the service is silent, by far.
    assert sending._STREAM_SILENCE_SECONDS > watching._BEAT_SECONDS + 2
    monkeypatch.setattr(sending, "_STREAM_SILENCE_SECONDS", 0.2)
    async with joined(streams(waits(2), then=hangs), streams(CLAIMED), silence_seconds=0.2) as (ticket, service):
        assert await ticket.wait() == Claimed(_CLAIM)
    assert asked_of(service) == ["GET /events"] * 2


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client pauses between questions; it does so in no time."""
    found: list[float] = []

    async def noted(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(module, "sleep", noted)
    return found


async def test_where_no_stream_comes_through_it_asks_after_1_2_3_4_and_then_every_4_seconds(
    pauses: list[float],
) -> None:
    async with joined(refuses("not-found", 404), *(says(200, waits(2)) for _ in range(5)), says(200, CLAIMED)) as (
        ticket,
        service,
    ):
        assert await ticket.wait() == Claimed(_CLAIM)
    assert asked_of(service) == ["GET /events", *["GET "] * 6]
    assert pauses == [1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("say", "tried"),
    # aiohttp itself may repeat a request, once.
    [(cuts, {3, 4, 5, 6}), (refuses("unavailable", 503), {3}), (streams(TICKET), {3}), (says(200, TICKET), {1})],
    ids=["cut", "unavailable", "nothing new", "no stream"],
)
async def test_streams_that_tell_nothing_are_given_up_soon(say: Say, tried: set[int], pauses: list[float]) -> None:
    async with joined() as (ticket, service):
        service.says[:] = [*[say] * max(tried), says(200, CLAIMED)]
        assert await ticket.wait() == Claimed(_CLAIM)
    *streamed, last = asked_of(service)
    assert (set(streamed), last) == ({"GET /events"}, "GET ")
    assert len(streamed) in tried
    assert pauses[-1] == 1


async def test_streams_leave_connections_for_requests(pauses: list[float]) -> None:
    async with joined(says(200, waits(2)), says(200, CLAIMED), connections=1) as (ticket, service):
        assert await ticket.wait() == Claimed(_CLAIM)
    assert asked_of(service) == ["GET ", "GET "]


async def test_a_ticket_without_a_stream_gets_one_as_soon_as_there_is_room(pauses: list[float]) -> None:
    streamed = [streams(waits(2), then=hangs), streams(CLAIMED)]

    async def say(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/events"):
            return await streamed.pop(0)(request)
        return await says(202 if request.method == "POST" else 200, waits(1))(request)

    async with scripted(say) as service, ClaimClient(service.url, connections=3) as client:
        first, second = [await client.claim_async(user_id=user, coupon_name="spring") for user in ("ada", "ben")]
        assert isinstance(first, Ticket)
        assert isinstance(second, Ticket)
        watching = asyncio.create_task(first.wait(leave_if_cancelled=False))
        await until(lambda: first.position == 2, "the first is watched")
        waiting = asyncio.create_task(second.wait())
        await until(lambda: f"GET {_PATH}" in [f"{each.method} {each.path}" for each in service.asked], "it is asked")
        watching.cancel()
        await asyncio.wait([watching])
        assert await waiting == Claimed(_CLAIM)


async def test_a_ticket_that_is_no_longer_known_has_ended_unknown(pauses: list[float]) -> None:
    async with joined(refuses("unknown-ticket", 404)) as (ticket, service):
        assert await ticket.wait() == UnknownTicket()
    assert asked_of(service) == ["GET /events"]
    async with joined(refuses("not-found", 404), refuses("unknown-ticket", 404)) as (ticket, service):
        assert await ticket.wait() == UnknownTicket()


async def test_who_may_not_read_it_is_an_error(pauses: list[float]) -> None:
    async with joined(refuses("forbidden", 403)) as (ticket, _):
        with pytest.raises(ForbiddenError):
            await ticket.wait()


async def test_a_service_that_is_gone_is_an_error_and_the_ticket_is_kept() -> None:
    async with joined(cuts, deadline_seconds=0.3) as (ticket, service):
        with pytest.raises(UnavailableError):
            await ticket.wait()
        assert "DELETE " not in asked_of(service)
        assert ticket.end is None


@pytest.mark.parametrize(
    "document",
    [
        TICKET | {"position": "3"},
        {name: value for name, value in TICKET.items() if name != "state"},
        ended("claimed"),
        ended("refused"),
        ended("evaporated"),
        [],
    ],
)
async def test_a_ticket_that_cannot_be_read_is_an_error(document: Any) -> None:
    async with joined(streams(document)) as (ticket, _):
        with pytest.raises(UnexpectedAnswerError):
            await ticket.wait()


async def test_waiting_for_a_time_keeps_the_place() -> None:
    async with joined(streams(waits(2), then=hangs)) as (ticket, service):
        with pytest.raises(TimeoutError):
            await ticket.wait(0.3)
        assert (ticket.position, ticket.end) == (2, None)
        assert asked_of(service) == ["GET /events"]


async def test_who_is_cancelled_leaves_the_queue() -> None:
    async with joined(streams(waits(2), then=hangs), says(204, None)) as (ticket, service):
        waiting = asyncio.create_task(ticket.wait())
        await until(lambda: ticket.position == 2, "the ticket is watched")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asked_of(service) == ["GET /events", "DELETE "]
        assert (ticket.end, ticket.state, ticket.position) == (Left(), "left", None)


@pytest.mark.parametrize("say", [cuts, refuses("unavailable", 503), hangs])
async def test_leaving_when_cancelled_takes_no_longer_than_two_seconds(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module._LEAVING_SECONDS == 2.0
    monkeypatch.setattr(module, "_LEAVING_SECONDS", 0.3)
    async with joined(streams(waits(2), then=hangs), say) as (ticket, service):
        waiting = asyncio.create_task(ticket.wait())
        await until(lambda: ticket.position == 2, "the ticket is watched")
        began = time.monotonic()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - began < 2
        assert "DELETE " in asked_of(service)


async def test_who_is_cancelled_can_keep_the_place() -> None:
    async with joined(streams(waits(2), then=hangs)) as (ticket, service):
        waiting = asyncio.create_task(ticket.wait(leave_if_cancelled=False))
        await until(lambda: ticket.position == 2, "the ticket is watched")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asked_of(service) == ["GET /events"]


async def test_leaving_in_time_is_told_and_too_late_too() -> None:
    async with joined(says(204, None)) as (ticket, _):
        assert await ticket.leave() == Left()
        assert await ticket.wait() == Left()
    async with joined(refuses("ticket-started", 409, ticket=CLAIMED)) as (ticket, _):
        outcome = await ticket.leave()
        assert isinstance(outcome, TicketStarted)
        assert outcome.ticket.state == "claimed"
        assert ticket.end == Claimed(_CLAIM)
    async with joined(refuses("unknown-ticket", 404)) as (ticket, _):
        assert await ticket.leave() == UnknownTicket()


async def test_a_dead_ticket_that_is_tried_again_is_seen_again() -> None:
    async with joined(streams(ended("dead")), says(200, TICKET | {"state": "started"}), streams(CLAIMED)) as (
        ticket,
        _,
    ):
        assert await ticket.wait() == Dead()
        assert await ticket.refresh() is ticket
        assert await ticket.wait() == Claimed(_CLAIM)


async def test_a_coupon_is_created_and_read_with_its_queue() -> None:
    queue = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100, "order": "fifo"}
    async with scripted(says(201, COUPON), says(200, COUPON | {"queue": queue})) as service:
        async with ClaimClient(service.url) as client:
            await client.create_coupon("spring", 5, queue=queue)
            found = await client.coupon("spring")
    assert service.asked[0].json()["queue"] == queue
    assert isinstance(found, Coupon)
    assert found.queue == queue


_STREAM = (
    b'\xef\xbb\xbf: hello\r\nid: 7\nevent: ticket\rdata: {"a":\ndata:1}\r\n\r\nretry: 5\n\ndata:  x\n\nid: 8\ndata: cut'
)
_EVENTS = [Event("ticket", b'{"a":\n1}', "7"), Event("message", b" x", "7")]


@pytest.mark.parametrize("size", range(1, len(_STREAM) + 1))
def test_events_are_read_however_their_bytes_arrive(size: int) -> None:
    parser = EventParser()
    chunks = [_STREAM[start : start + size] for start in range(0, len(_STREAM), size)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == _EVENTS


@pytest.mark.parametrize("line", [b"x" * 100_000, b"data: " + b"x" * 100_000 + b"\n"])
def test_an_event_without_end_is_not_kept(line: bytes) -> None:
    parser = EventParser()
    with pytest.raises(ValueError, match="longer than"):
        for _ in range(20):
            list(parser.feed(line))
