"""The service in memory, with queues: one event loop decides everything, and mutants override a step of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

from aiohttp import web

from tests.stress_test.honest_service import Coupon, HonestService, problem

SEED = bytes(range(32))
_CLAIM_SECONDS = 0.03
_PASS_SECONDS = 0.01
_SECOND = timedelta(seconds=1)


@dataclass
class Ticket:
    coupon_name: str
    user_id: str
    joined_at: datetime
    id: str = field(default_factory=lambda: str(uuid4()))
    state: str = "waiting"
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: dict[str, Any] | None = None


@dataclass
class Line:
    """The queue of a coupon; `waiting` is in the order of places."""

    settings: dict[str, Any]
    starts_at: datetime | None
    tickets: list[Ticket] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)
    drawn: list[Ticket] | None = None
    paused: bool = False

    @property
    def under_way(self) -> list[Ticket]:
        return [each for each in self.tickets if each.state == "started"]

    @property
    def is_to_be_drawn(self) -> bool:
        return self.settings["order"] == "draw" and self.drawn is None


class QueueService(HonestService):
    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, Line] = {}
        self._last = datetime.now(UTC)

    def now(self) -> datetime:
        """A moment of its own for every decision, as locks make it."""
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        return self._last

    def app(self) -> web.Application:
        app = super().app()
        app.add_routes(
            [
                web.get("/api/tickets/{id}", self.show_ticket),
                web.get("/api/coupons/{name}/tickets", self.list_tickets),
                web.get("/api/coupons/{name}/draw", self.show_draw),
                web.post("/api/coupons/{name}/queue/{word}", self.pause),
            ]
        )
        app.cleanup_ctx.append(self._dispatching)
        return app

    async def _dispatching(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._dispatch())
        yield
        task.cancel()

    async def create(self, request: web.Request) -> web.StreamResponse:
        response = await super().create(request)
        body = await request.json()
        if response.status == 201 and "queue" in body:
            starts_at = datetime.fromisoformat(body["starts_at"]) if "starts_at" in body else None
            self.lines[body["name"]] = Line(body["queue"], starts_at)
        return response

    async def show(self, request: web.Request) -> web.StreamResponse:
        response = await super().show(request)
        line = self.lines.get(request.match_info["name"])
        if line is None or line.starts_at is None:
            return response
        assert isinstance(response, web.Response)
        assert response.text is not None
        return web.Response(
            text=response.text[:-1] + f', "starts_at": "{line.starts_at.isoformat()}"}}',
            content_type="application/json",
        )

    async def decide(self, request: web.Request, name: str, user: str) -> web.StreamResponse:
        line = self.lines.get(name)
        if line is None:
            return await super().decide(request, name, user)
        held = self.held(self.coupons[name], user)
        if held is not None:
            return problem(409, "already-claimed", claim=held)
        return self.join(line, self.coupons[name], name, user)

    def join(self, line: Line, coupon: Coupon, name: str, user: str) -> web.StreamResponse:
        ticket = self.ticket_of(line, user)
        if ticket is None:
            if coupon.remaining == 0:
                return problem(409, "sold-out")
            if not self.may_join(line, coupon):
                return problem(429, "queue-full")
            ticket = Ticket(name, user, self.now())
            line.tickets.append(ticket)
            line.waiting.append(ticket)
        return web.json_response(self.shown(ticket), status=202)

    def ticket_of(self, line: Line, user: str) -> Ticket | None:
        return next((each for each in line.tickets if each.user_id == user and each.ended_at is None), None)

    def may_join(self, line: Line, coupon: Coupon) -> bool:
        has_units = line.is_to_be_drawn or len(line.waiting) < coupon.remaining - len(line.under_way)
        return has_units and len(line.waiting) < int(line.settings["max_length"])

    def shown(self, ticket: Ticket) -> dict[str, Any]:
        line = self.lines[ticket.coupon_name]
        position = line.waiting.index(ticket) + 1 if ticket in line.waiting and not line.is_to_be_drawn else None
        return {
            **{name: getattr(ticket, name) for name in ("id", "coupon_name", "user_id", "state", "outcome")},
            "position": 0 if ticket.state == "started" else position,
            **{name: _text(getattr(ticket, name)) for name in ("joined_at", "started_at", "ended_at")},
        }

    async def show_ticket(self, request: web.Request) -> web.StreamResponse:
        for line in self.lines.values():
            for ticket in line.tickets:
                if ticket.id == request.match_info["id"]:
                    return web.json_response(self.shown(ticket))
        return problem(404, "unknown-ticket")

    async def list_tickets(self, request: web.Request) -> web.StreamResponse:
        assert "Authorization" in request.headers
        tickets = self.lines[request.match_info["name"]].tickets
        items = [{**self.shown(each), "tries": 1, "outcome": None, "position": None} for each in tickets]
        return _page(request, "items", items)

    async def show_draw(self, request: web.Request) -> web.StreamResponse:
        line = self.lines[request.match_info["name"]]
        entries = [sha256(each.id.encode()).hexdigest() for each in line.drawn or []]
        seed = None if line.is_to_be_drawn else self.seed().hex()
        return _page(request, "entries", entries, seed_hash=sha256(SEED).hexdigest(), seed=seed)

    def seed(self) -> bytes:
        return SEED

    async def pause(self, request: web.Request) -> web.StreamResponse:
        self.lines[request.match_info["name"]].paused = request.match_info["word"] == "pause"
        return web.json_response({})

    async def _dispatch(self) -> None:
        while True:
            for name, line in self.lines.items():
                self.look_after(line, self.coupons[name], self.now())
            await asyncio.sleep(_PASS_SECONDS)

    def look_after(self, line: Line, coupon: Coupon, now: datetime) -> None:
        for ticket in line.under_way:
            if ticket.started_at is not None and now - ticket.started_at > timedelta(seconds=_CLAIM_SECONDS):
                self.end(ticket, coupon)
        if line.paused or (line.starts_at is not None and now < line.starts_at):
            return
        if line.is_to_be_drawn:
            line.drawn = self.draw(
                [each for each in line.waiting if line.starts_at and each.joined_at < line.starts_at]
            )
            line.waiting = [*line.drawn, *(each for each in line.waiting if each not in line.drawn)]
        for ticket in list(line.waiting):
            waited = now - max(ticket.joined_at, line.starts_at or ticket.joined_at)
            if waited.total_seconds() >= line.settings["max_wait_seconds"]:
                line.waiting.remove(ticket)
                ticket.state, ticket.ended_at = "expired", now
        moment = self.now()
        for _ in range(self.allowed(line, moment)):
            if line.waiting:
                ticket = self.next(line)
                line.waiting.remove(ticket)
                ticket.state, ticket.started_at = "started", moment

    def allowed(self, line: Line, now: datetime) -> int:
        of_late = [each for each in line.tickets if each.started_at is not None and each.started_at > now - _SECOND]
        rate, concurrency = int(line.settings["rate_per_second"]), int(line.settings["concurrency"])
        return max(0, min(rate - len(of_late), concurrency - len(line.under_way)))

    def next(self, line: Line) -> Ticket:
        return line.waiting[0]

    def draw(self, early: list[Ticket]) -> list[Ticket]:
        def drawn_at(ticket: Ticket) -> bytes:
            return sha256(SEED + sha256(ticket.id.encode()).digest()).digest()

        return sorted(early, key=drawn_at)

    def end(self, ticket: Ticket, coupon: Coupon) -> None:
        ticket.ended_at = self.now()
        if coupon.remaining == 0:
            ticket.state, ticket.outcome = "refused", {"problem": {"type": "/problems/sold-out"}}
            return
        coupon.remaining -= 1
        ticket.state = "claimed"
        ticket.outcome = {"claim": self.record(coupon, ticket.coupon_name, ticket.user_id)}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _page(request: web.Request, name: str, items: list[Any], **members: Any) -> web.StreamResponse:
    start = int(request.query.get("cursor", "0"))
    end = start + int(request.query["limit"])
    cursor = str(end) if end < len(items) else None
    return web.json_response({name: items[start:end], "next_cursor": cursor, **members})
