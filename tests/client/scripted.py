"""A service that says what a test tells it to, one answer after the other, and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Say = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLAIM = {
    "id": "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90",
    "coupon_name": "spring",
    "user_id": "ada",
    "state": "active",
    "claimed_at": "2026-11-21T02:28:17.951077Z",
}
TICKET = {
    "id": "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e91",
    "coupon_name": "spring",
    "user_id": "ada",
    "state": "waiting",
    "position": 3,
    "ahead": 2,
    "eta_seconds": 4,
    "stopped": None,
    "joined_at": "2026-11-21T02:28:17Z",
    "started_at": None,
    "ended_at": None,
    "outcome": None,
}
COUPON = {
    "name": "spring",
    "amount": 5,
    "remaining_amount": 4,
    "strategy": "redlock",
    "created_at": "2026-11-21T02:28:17Z",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived. `connection` tells those of one connection from others."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: object

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Scripted:
    """`says` are the answers to come; the last one is given again and again."""

    url: str = ""
    says: list[Say] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = Asked(request.method, request.raw_path, request.headers, body, request.transport)
        self.asked.append(asked)
        return await (self.says.pop(0) if len(self.says) > 1 else self.says[0])(request)


@asynccontextmanager
async def scripted(*says: Say) -> AsyncIterator[Scripted]:
    """The service on a free port."""
    service = Scripted(says=list(says))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.answer)
    # What hangs on purpose is not waited for; 0 would be without end.
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()


def says(status: int, document: object, **headers: str) -> Say:
    """An answer in JSON; `_` in a header's name is `-`."""

    async def say(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=json.dumps(document).encode(), headers=named)

    return say


def problem(slug: str, status: int, **members: object) -> dict[str, object]:
    """The body of a problem."""
    about = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": "so it is", "request_id": "r-1"}
    return about | members


def refuses(slug: str, status: int, *, retry_after: str | None = None, **members: object) -> Say:
    """An answer that is a problem."""
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    return says(status, problem(slug, status, **members), **headers)


def streams(*events: Mapping[str, object], then: Say | None = None) -> Say:
    """A stream of events of a ticket, each with an id of its own; then it ends, or what `then` does comes after."""

    async def say(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for number, event in enumerate(events):
            await stream.write(f": ping\n\nid: e-{number}\nevent: ticket\ndata: {json.dumps(event)}\n\n".encode())
        if then is not None:
            await then(request)
        return stream

    return say


async def hangs(_: web.Request) -> web.StreamResponse:
    """Nothing more, for far longer than any test lasts."""
    await asyncio.sleep(3600)
    return web.Response()


async def cuts(request: web.Request) -> web.StreamResponse:
    """No answer: the connection ends."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
