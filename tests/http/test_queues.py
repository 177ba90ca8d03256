"""Queues, their tickets and dead letters, as operators see and change them over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from claimsvc.domain import StrategyName, Ticket, TicketState
from claimsvc.http.app import create_app
from tests.http.memory_services import Observations, memory_services
from tests.http.memory_tickets import AT, MemoryTickets
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served

IDS = [f"019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e9{number}" for number in range(4)]
WAITING = Ticket(IDS[0], "spring", "ann", TicketState.WAITING, AT)
STARTED = replace(WAITING, id=IDS[1], user_id="bob", state=TicketState.STARTED, tries=1, started_at=AT)
DEAD = replace(STARTED, id=IDS[2], user_id="eve", state=TicketState.DEAD, tries=8, ended_at=AT + timedelta(minutes=1))
OTHER = replace(DEAD, id=IDS[3], coupon_name="autumn")
MINE = {**ADMIN, "X-Request-ID": "mine"}


class Operator:
    def __init__(self, url: str, client: aiohttp.ClientSession, tickets: MemoryTickets) -> None:
        self.url, self.client, self.tickets = url, client, tickets

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> tuple[int, Any]:
        request = self.client.request(method, self.url + path, json=json, headers=MINE | headers)
        async with request as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    store, tickets = MemoryStore(), MemoryTickets(WAITING, STARTED, DEAD, OTHER)
    await store.create_coupon("spring", 5, StrategyName.REDLOCK)
    await store.create_coupon("autumn", 5, StrategyName.REDLOCK)
    await store.create_coupon("plain", 5, StrategyName.REDLOCK)
    app = create_app(memory_services(store, Observations(), tickets=tickets))
    async with served(app) as port, aiohttp.ClientSession() as client:
        yield Operator(f"http://127.0.0.1:{port}", client, tickets)


def listed(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.id,
        "coupon_name": ticket.coupon_name,
        "user_id": ticket.user_id,
        "state": ticket.state.value,
        "joined_at": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:00Z" if ticket.started_at else None,
        "ended_at": "2026-01-01T00:01:00Z" if ticket.ended_at else None,
        "tries": ticket.tries,
    }


def letter(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.id,
        "kind": "ticket",
        "coupon_name": ticket.coupon_name,
        "user_id": "eve",
        "dead_at": "2026-01-01T00:01:00Z",
        "tries": 8,
    }


async def test_the_queues_in_use_are_listed(operator: Operator) -> None:
    status, body = await operator.ask("GET", "/api/queues")
    assert (status, [each["coupon_name"] for each in body["items"]]) == (200, ["autumn", "spring"])
    assert body["items"][1] == {
        "coupon_name": "spring",
        "queue": {
            "rate_per_second": 1000,
            "concurrency": 64,
            "max_wait_seconds": 300,
            "max_length": 100_000,
            "order": "fifo",
        },
        "waiting": 1,
        "started": 1,
        "dead": 1,
        "pace": 2.5,
        "stopped": None,
        "paused": False,
        "oldest_joined_at": "2026-01-01T00:00:00Z",
        "dispatcher": "web-1",
        "dispatched_at": "2026-01-01T00:00:01Z",
    }


async def test_a_coupon_s_tickets_are_listed_page_by_page_and_by_state(operator: Operator) -> None:
    path = "/api/coupons/spring/tickets"
    assert await operator.ask("GET", path) == (
        200,
        {"items": [listed(WAITING), listed(STARTED), listed(DEAD)], "next_cursor": None},
    )
    status, first = await operator.ask("GET", f"{path}?limit=2")
    assert (status, first["items"]) == (200, [listed(WAITING), listed(STARTED)])
    assert await operator.ask("GET", f"{path}?limit=2&cursor={first['next_cursor']}") == (
        200,
        {"items": [listed(DEAD)], "next_cursor": None},
    )
    _, some = await operator.ask("GET", f"{path}?state=started,dead")
    assert some["items"] == [listed(STARTED), listed(DEAD)]
    assert await operator.ask("GET", "/api/coupons/plain/tickets") == (200, {"items": [], "next_cursor": None})
    assert (await operator.ask("GET", "/api/coupons/none/tickets"))[0] == 404
    assert (await operator.ask("GET", f"{path}?state=asleep"))[0] == 400
    assert (await operator.ask("GET", f"{path}?cursor=none"))[0] == 400


async def test_a_queue_is_paused_and_goes_on_and_the_audit_is_told_once(operator: Operator) -> None:
    for action, paused in (("pause", True), ("pause", True), ("resume", False)):
        path, reason = f"/api/coupons/spring/queue/{action}", {"reason": f"to {action}"}
        status, body = await operator.ask("POST", path, reason)
        assert (status, body["paused"], body["stopped"]) == (200, paused, "paused" if paused else None)
    assert [(each.action, each.subject, each.reason, each.request_id) for each in operator.tickets.entries] == [
        ("queue.pause", "spring", "to pause", "mine"),
        ("queue.resume", "spring", "to resume", "mine"),
    ]
    status, body = await operator.ask("POST", "/api/coupons/none/queue/pause", {"reason": "why"})
    assert (status, body["type"]) == (404, "/problems/unknown-coupon")
    status, body = await operator.ask("POST", "/api/coupons/spring/queue/pause", {})
    assert (status, body["errors"][0]["pointer"]) == (400, "#/reason")


async def test_dead_letters_are_listed_requeued_and_discarded(operator: Operator) -> None:
    assert await operator.ask("GET", "/api/dead-letters") == (
        200,
        {"items": [letter(DEAD), letter(OTHER)], "next_cursor": None},
    )
    _, first = await operator.ask("GET", "/api/dead-letters?limit=1")
    assert (await operator.ask("GET", f"/api/dead-letters?cursor={first['next_cursor']}"))[1]["items"] == [
        letter(OTHER)
    ]
    requeue = ("POST", f"/api/dead-letters/{DEAD.id}/requeue", {"reason": "it is back"})
    assert await operator.ask(*requeue) == (200, listed(replace(DEAD, state=TicketState.STARTED)))
    status, problem = await operator.ask(*requeue)
    assert (status, problem["type"]) == (409, "/problems/ticket-not-dead")
    discard = ("DELETE", f"/api/dead-letters/{OTHER.id}", {"reason": "too late"})
    assert await operator.ask(*discard) == (200, listed(replace(OTHER, state=TicketState.LEFT)))
    assert (await operator.ask("GET", "/api/dead-letters"))[1]["items"] == []
    unknown = "/api/dead-letters/019b2c5e-0000-7000-8000-000000000000"
    for request in (("POST", f"{unknown}/requeue", {"reason": "why"}), ("DELETE", unknown, {"reason": "why"})):
        status, problem = await operator.ask(*request)
        assert (status, problem["type"]) == (404, "/problems/unknown-ticket")
    assert [(each.action, each.subject_type, each.subject, each.reason) for each in operator.tickets.entries] == [
        ("ticket.requeue", "ticket", DEAD.id, "it is back"),
        ("ticket.discard", "ticket", OTHER.id, "too late"),
    ]


async def test_what_is_sent_again_under_its_key_is_answered_as_before(operator: Operator) -> None:
    for path in ("/api/coupons/spring/queue/pause", f"/api/dead-letters/{DEAD.id}/requeue"):
        key = {"Idempotency-Key": path.replace("/", ".")}
        first = await operator.ask("POST", path, {"reason": "why"}, **key)
        assert first[0] == 200
        assert await operator.ask("POST", path, {"reason": "why"}, **key) == first
        status, problem = await operator.ask("POST", path, {"reason": "another"}, **key)
        assert (status, problem["type"]) == (422, "/problems/key-reused")
    assert len(operator.tickets.entries) == 2
