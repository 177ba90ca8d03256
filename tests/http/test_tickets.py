"""Tickets over HTTP: read, followed by long polls and by events, and left."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from claimsvc.domain import AlreadyClaimed, Claim, ClaimState, QueueStop, SoldOut, Ticket, TicketState
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_app
from claimsvc.http.resources.tickets.watching import WATCHERS, Watchers, following
from claimsvc.identity.tokens import open_tokens
from tests.http.memory_services import Observations, memory_services
from tests.http.ticketed import AT, HeldTickets, ended, started, ticket_id, waiting
from tests.support.memory_store import MemoryStore
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.support.waiting import until

CLAIM = Claim(ticket_id(9), "mega", "ann", ClaimState.ACTIVE, AT, code="SECRET-1")


@dataclass
class Stage:
    """A service with tickets, of which a test says what becomes of them."""

    url: str
    app: web.Application
    held: HeldTickets
    client: aiohttp.ClientSession
    observations: Observations

    async def get(self, path: str = "", **headers: str) -> tuple[int, Any, Any]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(f"{self.url}/api/tickets/{path or ticket_id()}", headers=sent) as response:
            return response.status, await response.json(content_type=None), response.headers

    def events(self, path: str = "", **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(f"{self.url}/api/tickets/{path or ticket_id()}/events", headers=sent)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    held, observations = HeldTickets(), Observations()
    app = create_app(memory_services(MemoryStore(), observations, tickets=held, progress=held))
    async with served(app) as port, aiohttp.ClientSession() as client:
        yield Stage(f"http://127.0.0.1:{port}", app, held, client, observations)


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """The ids and data of the events `ticket`, until the stream ends."""
    async for line in response.content:
        if line.startswith(b"id: "):
            last = line[4:].strip().decode()
        elif line.startswith(b"data: "):
            yield last, json.loads(line[6:])


async def test_a_ticket_is_read_with_what_became_of_it(stage: Stage) -> None:
    await stage.held.put(waiting(4, stopped=QueueStop.PAUSED, eta_seconds=None))
    status, body, headers = await stage.get()
    assert (status, body["state"], body["position"], body["ahead"]) == (200, "waiting", 5, 4)
    assert (body["eta_seconds"], body["stopped"], body["outcome"]) == (None, "paused", None)
    assert headers["Retry-After"] == "1"
    await stage.held.put(waiting(400, eta_seconds=47.04))
    assert (await stage.get())[2]["Retry-After"] == "24"
    await stage.held.put(waiting(4000, eta_seconds=4000.0))
    assert (await stage.get())[2]["Retry-After"] == "60"
    await stage.held.put(started())
    _, body, headers = await stage.get()
    assert (body["position"], body["ahead"], headers["Retry-After"]) == (0, None, "1")
    for state in (TicketState.EXPIRED, TicketState.LEFT, TicketState.DEAD):
        await stage.held.put(ended(state))
        _, body, headers = await stage.get()
        assert (body["state"], body["position"], body["outcome"], "Retry-After" in headers) == (
            state,
            None,
            None,
            False,
        )
    await stage.held.put(ended(TicketState.CLAIMED, claim=CLAIM))
    assert (await stage.get())[1]["outcome"] == {
        "claim": {
            "id": CLAIM.id,
            "coupon_name": "mega",
            "user_id": "ann",
            "state": "active",
            "claimed_at": "2026-01-02T03:04:05Z",
            "expires_at": None,
            "ended_at": None,
            "code": "SECRET-1",
        }
    }
    await stage.held.put(ended(TicketState.REFUSED, refusal=SoldOut()))
    problem = (await stage.get(X_Request_ID="mine"))[1]["outcome"]["problem"]
    assert (problem["type"], problem["status"], problem["request_id"]) == ("/problems/sold-out", 409, "mine")


async def test_the_id_of_a_ticket_may_be_in_capitals(stage: Stage) -> None:
    await stage.held.put(waiting())
    assert (await stage.get(ticket_id().upper()))[1]["id"] == ticket_id()


async def test_unknown_tickets_are_not_found(stage: Stage) -> None:
    for method, more in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        for path, status, slug in ((ticket_id(7), 404, "unknown-ticket"), ("7", 400, "bad-request")):
            async with stage.client.request(method, f"{stage.url}/api/tickets/{path}{more}") as response:
                problem = await response.json(content_type=None)
                assert (response.status, problem["type"]) == (status, f"/problems/{slug}")


async def test_codes_are_shown_to_their_user_and_who_may_read_codes_alone(tmp_path: Path) -> None:
    issuer, held = Issuer(), HeldTickets()
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [issuer.public()]}), encoding="utf-8")
    async with open_tokens(str(path), issuer=ISSUER, audience=AUDIENCE) as tokens:
        services = memory_services(MemoryStore(), Observations(), tokens=tokens, tickets=held, progress=held)
        async with served(create_app(services)) as port, aiohttp.ClientSession() as client:
            url = f"http://127.0.0.1:{port}/api/tickets/{ticket_id()}"
            for outcome in ({"claim": CLAIM}, {"refusal": AlreadyClaimed(CLAIM)}):
                state = TicketState.CLAIMED if "claim" in outcome else TicketState.REFUSED
                await held.put(ended(state, **outcome))
                for credential, is_shown in ((issuer.token("ann"), True), ("key-for-tickets:read", False)):
                    for more in ("", "/events"):
                        async with client.get(url + more, headers=bearer(credential)) as response:
                            assert (response.status, "SECRET-1" in await response.text()) == (200, is_shown)
                async with client.get(url, headers=bearer(issuer.token("eve"))) as response:
                    assert response.status == 403
            for credential in (issuer.token("ann"), "key-for-tickets:write"):
                async with client.delete(url, headers=bearer(credential)) as response:
                    text = await response.text()
                    assert (response.status, "SECRET-1" in text) == (409, False)
            async with client.delete(url, headers=bearer(issuer.token("eve"))) as response:
                assert response.status == 403


async def test_who_is_ready_to_wait_is_answered_when_the_ticket_changes(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    for change in (waiting(2), started(), ended(TicketState.EXPIRED)):
        asked = asyncio.create_task(stage.get(Prefer="wait=10"))
        await until(lambda: stage.held.watching == 1, "1 watch")
        await stage.held.put(change)
        _, body, headers = await asyncio.wait_for(asked, 5)
        assert (body["state"], body["position"]) == (change.state, change.position)
        assert headers["Preference-Applied"] == "wait=10"
    # An end is final, so nobody waits for another.
    assert "Preference-Applied" not in (await asyncio.wait_for(stage.get(Prefer="wait=10"), 5))[2]


async def test_who_is_ready_to_wait_is_answered_in_time_and_after_ten_seconds_at_most(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.held.put(waiting(3))
    began = time.monotonic()
    _, body, headers = await stage.get(Prefer="wait=1")
    assert (body["position"], headers["Preference-Applied"]) == (4, "wait=1")
    assert time.monotonic() - began >= 0.9
    asked: list[float] = []

    async def changed(ticket: Ticket, *, within_seconds: float) -> Ticket:
        asked.append(within_seconds)
        return ticket

    monkeypatch.setattr(stage.held, "changed", changed)
    for seconds in ("11", "999999999"):
        assert (await stage.get(Prefer=f"wait={seconds}"))[2]["Preference-Applied"] == "wait=10"
    for nothing in ("wait=0", "wait=-1", "wait", "wait=soon", "respond-async"):
        assert "Preference-Applied" not in (await stage.get(Prefer=nothing))[2]
    assert asked == [10, 10]


async def test_a_ticket_that_is_purged_meanwhile_is_not_found(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    asked = asyncio.create_task(stage.get(Prefer="wait=10"))
    await until(lambda: stage.held.watching == 1, "1 watch")
    del stage.held.found[ticket_id()]
    await stage.held.put(waiting(id=ticket_id(2)))
    assert (await asyncio.wait_for(asked, 5))[1]["type"] == "/problems/unknown-ticket"


async def test_leaving_ends_a_ticket_once(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    url = f"{stage.url}/api/tickets/{ticket_id()}"
    for _ in range(2):
        async with stage.client.delete(url) as response:
            assert (response.status, await response.read(), "Content-Length" in response.headers) == (204, b"", False)
    assert (await stage.get())[1]["state"] == "left"
    await stage.held.put(ended(TicketState.CLAIMED, claim=CLAIM))
    async with stage.client.delete(url) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["type"]) == (409, "/problems/ticket-started")
        assert (problem["ticket"]["state"], problem["ticket"]["outcome"]["claim"]["id"]) == ("claimed", CLAIM.id)


async def test_events_tell_each_change_once_until_the_end(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    async with stage.events() as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert "X-Request-ID" in response.headers
        events = events_of(response)
        seen = [await anext(events)]
        for change in (waiting(1), started()):
            await until(lambda: stage.held.watching == 1, "1 watch")
            await stage.held.put(change)
            seen.append(await anext(events))
        await stage.held.put(ended(TicketState.CLAIMED, claim=CLAIM))
        seen += [each async for each in events]  # which ends
    assert [identifier for identifier, _ in seen] == ["waiting-4", "waiting-2", "started-0", "claimed"]
    assert [body["position"] for _, body in seen] == [4, 2, 0, None]
    assert seen[-1][1]["outcome"]["claim"]["code"] == "SECRET-1"
    assert seen[-1][1] == (await stage.get())[1]
    # How long somebody has watched is no duration of a request: it was counted when it began.
    assert ("GET", "/api/tickets/{id}/events", 200) in stage.observations.seen


async def test_who_comes_back_is_told_only_what_is_new(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    async with stage.events(Last_Event_ID="waiting-4") as response:
        await until(lambda: stage.held.watching == 1, "1 watch")
        await stage.held.put(ended(TicketState.EXPIRED))
        assert [identifier async for identifier, _ in events_of(response)] == ["expired"]
    async with stage.events(Last_Event_ID="waiting-4") as response:
        assert [identifier async for identifier, _ in events_of(response)] == ["expired"]
    async with stage.events(Last_Event_ID="expired") as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_a_stream_without_news_shows_that_it_lives_and_tells_that_the_queue_stops() -> None:
    held, watchers = HeldTickets(), Watchers()
    ticket = await held.put(waiting(3))
    stream = following(watchers, held, ticket, "", None, beat_seconds=0.01)
    assert await anext(stream) == ticket
    assert await anext(stream) is None
    paused = await held.put(replace(ticket, stopped=QueueStop.PAUSED))
    assert await anext(stream) == paused
    assert await anext(stream) is None
    watchers.stop()
    assert await anext(stream, "the end") in (None, "the end")
    assert await anext(stream, "the end") == "the end"


async def test_a_stream_ends_when_tickets_cannot_be_read() -> None:
    class Failing(HeldTickets):
        async def changed(self, ticket: Ticket, *, within_seconds: float) -> Ticket | None:
            raise UnavailableError("no database", dependency="postgresql")

    held = Failing()
    found = [each async for each in following(Watchers(), held, await held.put(waiting(3)), "", None)]
    assert found == [waiting(3)]


async def test_watchers_have_a_share_each_and_a_bound_in_all(stage: Stage) -> None:
    watchers = stage.app[WATCHERS]
    watchers.most_of_address = 2
    await stage.held.put(waiting(3))
    async with stage.events(), stage.events():
        await until(lambda: stage.held.watching == 2, "2 watch")
        async with stage.events() as third:
            assert third.status == 503
            assert (await third.json(content_type=None))["type"] == "/problems/too-many-viewers"
            assert third.headers["Retry-After"] == "5"
        # Who only asks is answered, without waiting.
        status, _, headers = await asyncio.wait_for(stage.get(Prefer="wait=10"), 5)
        assert (status, "Preference-Applied" in headers) == (200, False)
    # Who has gone is noticed, although nothing changes.
    await until(lambda: stage.held.watching == 0, "0 watch", within_seconds=5)
    watchers.most = 0
    async with stage.events() as other:
        assert other.status == 503
    watchers.most = 1
    async with stage.events() as again:
        assert again.status == 200


async def test_watchers_go_when_the_service_stops() -> None:
    held = HeldTickets(waiting(3))
    app = create_app(memory_services(MemoryStore(), Observations(), tickets=held, progress=held))
    async with aiohttp.ClientSession() as client:
        async with served(app) as port:
            url = f"http://127.0.0.1:{port}/api/tickets/{ticket_id()}"
            stream = await client.get(f"{url}/events")
            asked = asyncio.create_task(client.get(url, headers={"Prefer": "wait=10"}))
            await until(lambda: held.watching == 2, "2 watch")
            began = time.monotonic()
        answered = await asked
        assert (answered.status, (await answered.json())["position"]) == (200, 4)
        assert [identifier async for identifier, _ in events_of(stream)] == ["waiting-4"]
        assert time.monotonic() - began < 5


async def test_an_instance_that_stops_takes_no_watchers(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    stage.app[WATCHERS].stop()
    async with stage.events() as response:
        assert (response.status, (await response.json(content_type=None))["type"]) == (503, "/problems/unavailable")
    status, _, headers = await asyncio.wait_for(stage.get(Prefer="wait=10"), 5)
    assert (status, "Preference-Applied" in headers) == (200, False)


async def test_a_head_has_no_events(stage: Stage) -> None:
    await stage.held.put(waiting(3))
    async with stage.client.head(f"{stage.url}/api/tickets/{ticket_id()}/events") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert stage.held.watching == 0
