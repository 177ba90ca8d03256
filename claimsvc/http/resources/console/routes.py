"""The console: a static page, and the event stream of the live picture that it shows.

The files in `static` are plain JavaScript and CSS; they are served as they are.
"""

import asyncio
import contextlib
import socket
import time
from typing import Annotated

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import StreamWriter
from pydantic import Field

from claimsvc.errors import UnavailableError
from claimsvc.http.framework.pages import Pages
from claimsvc.http.framework.routing import Route, Success
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server import problems
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import RefusedError
from claimsvc.http.server.response import Head, Reply
from claimsvc.http.server.wire import RESPONSE_HEADERS, X_REQUEST_ID
from claimsvc.observability.console import Live
from claimsvc.ports.clients import CLIENT
from claimsvc.representations.fields import Request

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = (
    "index.html",
    "console.css",
    "icon.svg",
    "main.js",
    "stream.js",
    "history.js",
    "outcomes.js",
    "charts.js",
    "coupons.js",
    "panels.js",
    "queues.js",
    "dom.js",
)
_EVENT_STREAM = {
    **RESPONSE_HEADERS,
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    # Without it, nginx buffers the stream, and the page would be updated in bursts.
    "X-Accel-Buffering": "no",
}
_ACCEPTED = Head(202, {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: "application/json"})
# A viewer that reads nothing for this long is disconnected.
_SEND_TIMEOUT_SECONDS = 10.0
# Room for a few pictures. By default the system buffers a hundred times as much, and a slow viewer would see old ones.
_SEND_BUFFER_BYTES = 64 * 1024


class Console(Pages):
    """The console's files."""

    def __init__(self) -> None:
        super().__init__("claimsvc.http.resources.console", _FILES, _POLICY)


CONSOLE: web.AppKey[Console] = web.AppKey("console", Console)


class EventStream(web.StreamResponse):
    """The event stream of one viewer, until the viewer disconnects or the service stops.

    Implements the viewer of `claimsvc.observability.console`. While a viewer has not read what was sent, it gets no
    further pictures: slow viewers miss some, and need no memory.

    Args:
        live: sends the pictures.
    """

    def __init__(self, live: Live) -> None:
        super().__init__(headers=_EVENT_STREAM)
        self.force_close()  # a viewer that reconnects must be able to reach another instance
        self._live = live
        self._ended = asyncio.Event()
        self._taken_at = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._writer: StreamWriter | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        if isinstance(writer, StreamWriter) and self._writer is None:
            self._writer, self._transport = writer, request.transport
            _limit_send_buffer(self._transport)
        return writer

    async def send(self, frame: bytes) -> bool:
        writer, transport = self._writer, self._transport
        if writer is None:
            return True  # the head is not sent yet
        if transport is None or transport.is_closing():
            return False
        now = time.monotonic()
        if not transport.get_write_buffer_size():
            self._taken_at = now
            try:
                # Without waiting, because one task sends to all viewers.
                await writer.write(frame, drain=False)
            except ConnectionError:
                return False
        elif now - self._taken_at > _SEND_TIMEOUT_SECONDS:
            transport.abort()
            return False
        return True

    def end(self) -> None:
        self._ended.set()

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the stream ends. aiohttp calls this after the head was sent."""
        try:
            if not self._must_be_empty_body:
                await self._ended.wait()
        finally:
            self._live.leave(self)
        await super().write_eof(data)


async def console(request: web.Request) -> web.Response:
    """The console's page."""
    return request.app[CONSOLE].respond(request, "index.html")


async def console_file(request: web.Request) -> web.Response:
    """A file of the console."""
    return request.app[CONSOLE].respond(request, request.match_info["file"])


async def console_events(request: web.Request) -> web.StreamResponse:
    """The live picture as server-sent events: up to ten pictures a second while it changes, otherwise heartbeats."""
    live = request.app[SERVICES].live
    if live is None:
        raise UnavailableError("this instance has no console", dependency="claimsvc")
    if live.is_stopping:
        raise UnavailableError("this instance is stopping", dependency="claimsvc")
    if live.is_full:
        raise RefusedError(
            problems.TOO_MANY_VIEWERS, f"The console of this instance has {live.viewers} viewers, which is its limit."
        )
    address = CLIENT.get()
    if live.is_full_for(address):
        raise RefusedError(
            problems.TOO_MANY_VIEWERS,
            f"Your address has {live.most_of_address} viewers of this instance's console, which is the limit for one.",
        )
    stream = EventStream(live)
    if request.method == hdrs.METH_HEAD:
        return stream
    # There is no await between the check of the limit and this, so concurrent requests cannot exceed it.
    live.join(stream, address)
    try:
        stream.headers[X_REQUEST_ID] = request[REQUEST_ID]
        await stream.prepare(request)
        await live.greet(stream)
    except BaseException:
        live.leave(stream)
        raise
    return stream


def _limit_send_buffer(transport: asyncio.Transport | None) -> None:
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is not None:
        with contextlib.suppress(OSError):  # the socket is being closed
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


class StartStressTest(Request):
    """The scenario to run."""

    scenario: Annotated[
        str,
        Field(
            min_length=1, max_length=50, description="the name of a scenario, as the console lists it", examples=["all"]
        ),
    ]


async def start_stress_test(request: web.Request, body: StartStressTest) -> Reply:
    """Start the stress test against this service; all viewers see its result."""
    stress = request.app[SERVICES].stress
    if stress is None or body.scenario not in stress.scenarios:
        raise RefusedError(problems.NOT_FOUND, "No scenario has this name.")
    if not stress.start(body.scenario):
        raise RefusedError(problems.STRESS_TEST_RUNS)
    return Reply(_ACCEPTED, b"{}")


_PAGE = Success(200, "A page.", content_types=("text/html",))

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/console",
        console,
        tag="operations",
        summary="The console",
        success=_PAGE,
        documented=False,
        for_operators=True,
    ),
    Route(
        "GET",
        "/console/events",
        console_events,
        tag="operations",
        summary="The console's events",
        success=Success(200, "Server-sent events.", content_types=("text/event-stream",)),
        documented=False,
        for_operators=True,
    ),
    Route(
        "GET",
        "/console/{file}",
        console_file,
        tag="operations",
        summary="A file of the console",
        success=_PAGE,
        documented=False,
        for_operators=True,
    ),
)

# Only `claimsvc dev` installs these.
DEVELOPMENT_ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/console/stress-test",
        start_stress_test,
        tag="operations",
        summary="Start the stress test",
        success=Success(202, "The stress test is running."),
        problems=(problems.STRESS_TEST_RUNS,),
        documented=False,
        for_operators=True,
    ),
)
