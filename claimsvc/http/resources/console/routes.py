"""The console: a page of our own files, and the stream of what happens, sent to all who watch.

`static/console` is plain JavaScript and CSS, written here, served as it is.
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

from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework.pages import Pages
from claimsvc.http.framework.routing import Route, Success
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server import problems
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import RefusedError
from claimsvc.http.server.response import Head, Reply
from claimsvc.http.server.wire import RESPONSE_HEADERS, X_REQUEST_ID
from claimsvc.observability.console import Live
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
    "dom.js",
)
_EVENT_STREAM = {
    **RESPONSE_HEADERS,
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    # Proxies (nginx) collect answers otherwise, and a live page would come in gulps.
    "X-Accel-Buffering": "no",
}
_ACCEPTED = Head(202, {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: "application/json"})
# A viewer that has taken nothing for so long is gone, or as good as gone.
_PATIENCE_SECONDS = 10.0
# Some pictures. The system would keep a hundred times as much for who does not read, and they would be old when read.
_SEND_BUFFER_BYTES = 64 * 1024


class Console(Pages):
    """The console's files."""

    def __init__(self) -> None:
        super().__init__("claimsvc.http.resources.console", _FILES, _POLICY)


CONSOLE: web.AppKey[Console] = web.AppKey("console", Console)


class EventStream(web.StreamResponse):
    """An answer that goes on until its viewer, or the service, leaves. `live.Viewer`.

    What the connection has not taken yet is never added to: a slow viewer misses pictures, and costs no memory.
    """

    def __init__(self, live: Live) -> None:
        super().__init__(headers=_EVENT_STREAM)
        self.force_close()  # at its end, so that whoever comes back comes to an instance that is not stopping
        self._live = live
        self._ended = asyncio.Event()
        self._taken_at = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._writer: StreamWriter | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        if isinstance(writer, StreamWriter) and self._writer is None:
            self._writer, self._transport = writer, request.transport
            _keep_little(self._transport)
        return writer

    async def send(self, frame: bytes) -> bool:
        writer, transport = self._writer, self._transport
        if writer is None:
            return True  # its head is still to be sent
        if transport is None or transport.is_closing():
            return False
        now = time.monotonic()
        if not transport.get_write_buffer_size():
            self._taken_at = now
            try:
                # Nothing is waited for: this is the same task that sends to all.
                await writer.write(frame, drain=False)
            except ConnectionError:
                return False
        elif now - self._taken_at > _PATIENCE_SECONDS:
            transport.abort()
            return False
        return True

    def end(self) -> None:
        self._ended.set()

    async def write_eof(self, data: bytes = b"") -> None:
        """Called by aiohttp once the head is sent: stay until the end."""
        try:
            if not self._must_be_empty_body:
                await self._ended.wait()
        finally:
            self._live.leave(self)
        await super().write_eof(data)


async def console(request: web.Request) -> web.Response:
    """The page."""
    return request.app[CONSOLE].respond(request, "index.html")


async def console_file(request: web.Request) -> web.Response:
    """A file of the page."""
    return request.app[CONSOLE].respond(request, request.match_info["file"])


async def console_events(request: web.Request) -> web.StreamResponse:
    """What happens, as server-sent events: a picture up to ten times a second while it changes, else a beat."""
    live = request.app[SERVICES].live
    if live is None:
        raise RefusedError(UNAVAILABLE, "There is no console here.")
    if live.is_stopping:
        raise RefusedError(UNAVAILABLE, "This instance is stopping.", close=True)
    if live.is_full:
        raise RefusedError(
            problems.TOO_MANY_VIEWERS, f"This instance has {live.viewers} viewers of the console and takes no more."
        )
    stream = EventStream(live)
    if request.method == hdrs.METH_HEAD:
        return stream
    # Nothing was waited for since it was seen that there is a place: who comes in a crowd finds the same limit.
    live.join(stream)
    try:
        stream.headers[X_REQUEST_ID] = request[REQUEST_ID]
        await stream.prepare(request)
        await live.greet(stream)
    except BaseException:
        live.leave(stream)
        raise
    return stream


def _keep_little(transport: asyncio.Transport | None) -> None:
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is not None:
        with contextlib.suppress(OSError):  # it is being closed
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


class StartStressTest(Request):
    """Which scenario is to be run."""

    scenario: Annotated[str, Field(min_length=1, max_length=50)]


async def start_stress_test(request: web.Request, body: StartStressTest) -> Reply:
    """Fire the stress test at this service; what it comes to is told to all viewers."""
    stress = request.app[SERVICES].stress
    if stress is None or body.scenario not in stress.scenarios:
        raise RefusedError(problems.NOT_FOUND, "There is no such scenario.")
    if not stress.start(body.scenario):
        raise RefusedError(problems.STRESS_TEST_RUNS)
    return Reply(_ACCEPTED, b"{}")


_PAGE = Success(200, "A page.", content_types=("text/html",))

ROUTES: tuple[Route, ...] = (
    Route("GET", "/console", console, tag="operations", summary="What happens now", success=_PAGE, documented=False),
    Route(
        "GET",
        "/console/events",
        console_events,
        tag="operations",
        summary="What happens now, as a stream",
        success=Success(200, "Server-sent events.", content_types=("text/event-stream",)),
        documented=False,
    ),
    Route(
        "GET",
        "/console/{file}",
        console_file,
        tag="operations",
        summary="A file of the console",
        success=_PAGE,
        documented=False,
    ),
)

# Installed by `claimsvc dev` alone.
DEVELOPMENT_ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/console/stress-test",
        start_stress_test,
        tag="operations",
        summary="Fire the stress test",
        success=Success(202, "It runs."),
        problems=(problems.STRESS_TEST_RUNS,),
        documented=False,
    ),
)
