"""The outermost handler: gives every request an id, a response, one log line and one metric.

It wraps the application instead of being one of aiohttp's middlewares, because those are not called for malformed
requests, paths without a route, and an unknown `Expect`.
"""

import re
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy
from uuid_utils import uuid7

from claimsvc.errors import PermissionDeniedError, TransientError
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import CLAIM, AccessLog
from claimsvc.http.server.aiohttp_internals import match_of
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Response
from claimsvc.http.server.wire import X_REQUEST_ID

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNMATCHED = "unmatched"
# The status in the log if the client disconnected before the response.
_CLIENT_GONE = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_MAX_LOGGED_PATH = 256
# Paths that contain users or codes. Neither is logged: an erased user must not stay in logs, and a code can be used by
# anyone who reads it.
_NOT_LOGGED = ("/api/users/", "/api/codes/")

# Exceptions that have a problem of their own; all others are defects.
EXPECTED = (problems.RefusedError, PermissionDeniedError, TransientError, web.HTTPException)


def request_id_of(headers: CIMultiDictProxy[str]) -> str:
    """The request id that the client sent, if it is valid (1 to 128 of `A-Z a-z 0-9 . _ -`); otherwise a new one."""
    sent = headers.get(X_REQUEST_ID)
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else str(uuid7())


async def _respond(
    request: web.Request, handler: Handler, request_id: str
) -> tuple[web.StreamResponse, Exception | None]:
    """The handler's response, or the problem of its exception; and the exception, if it is unexpected."""
    try:
        _check_expectation(request)
        return await handler(request), None
    except EXPECTED as expected:
        return Response(problems.from_failure(expected, request_id)), None
    except Exception as unexpected:  # noqa: BLE001 - it is logged, and not shown to the client
        return Response(problems.from_failure(unexpected, request_id)), unexpected


class RequestBoundary:
    """The outermost handler.

    Args:
        handler: answers requests; its exceptions become problems.
        access_log: records requests.
        queue: orders requests fairly between addresses.

    Attributes:
        cors: adds headers for pages of other origins; None if there are none.
    """

    cors: Cors | None = None

    def __init__(self, handler: Handler, access_log: AccessLog, queue: FairQueue) -> None:
        self._handler = handler
        self._access_log = access_log
        self._queue = queue

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer a request. Raises `CancelledError` only."""
        return await self._answer(request, self._handler)

    def refusing(self, refusal: problems.RefusedError) -> Handler:
        """A handler for a request that could not be parsed: it gets an id, a log line and a metric like all others.

        Args:
            refusal: what the handler answers.
        """

        async def refuse(request: web.Request) -> web.StreamResponse:
            raise refusal

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, refuse)

        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        await self._turn(request)
        request_id = request[REQUEST_ID] = request_id_of(request.headers)
        try:
            response, defect = await _respond(request, handler, request_id)
            # A batch decides its claims together, and answering each takes as long as beginning it did.
            await self._turn(request)
        except CancelledError:
            self._record(request, _CLIENT_GONE, started, request_id, None)
            raise
        response.headers[X_REQUEST_ID] = request_id
        if self.cors is not None and not response.prepared:
            response.headers.update(self.cors.headers_at(request))
        self._record(request, response.status, started, request_id, defect)
        return response

    async def _turn(self, request: web.Request) -> None:
        if not self._queue.is_free(request.remote):
            await self._queue.turn(request.remote)

    def _record(
        self, request: web.Request, status: int, started: float, request_id: str, defect: Exception | None
    ) -> None:
        route = _route(request)
        self._access_log.add(
            method=request.method if request.method in _METHODS else "OTHER",
            path=_loggable_path(request, route),
            route=route,
            status=status,
            started=started,
            request_id=request_id,
            remote=request.remote,
            claim=request.get(CLAIM),
            defect=defect,
        )


def _check_expectation(request: web.Request) -> None:
    """Refuse an unknown `Expect`. The routes handle `100-continue`."""
    if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
        raise problems.RefusedError(problems.EXPECTATION_FAILED)


def _route(request: web.Request) -> str:
    """The route's template, which has a bounded number of values; `unmatched` if no route has the path."""
    match = match_of(request)
    resource = match.route.resource if match is not None else None
    return resource.canonical if resource is not None else UNMATCHED


def _loggable_path(request: web.Request, route: str) -> str:
    """The path as sent, percent-encoded, so that it is one line. The query is left out: it may be private."""
    path = request.rel_url.raw_path[:_MAX_LOGGED_PATH]
    for beginning in _NOT_LOGGED:
        if route.startswith(beginning):
            return route
        if path.startswith(beginning):
            return f"{beginning}..."
    if path.isascii() and path.isprintable():
        return path
    return path.encode("unicode_escape", "replace").decode("ascii")
