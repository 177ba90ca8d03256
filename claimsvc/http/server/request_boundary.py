"""What every request passes on its way in and out: a request id, an answer whatever happens, one log line, one count.

It stands around the whole application rather than in aiohttp's list of middlewares, because some answers are given
before that list is reached: a request that is not HTTP, a path without a route, an unknown `Expect`.
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
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Response
from claimsvc.http.server.wire import X_REQUEST_ID

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNMATCHED = "unmatched"
# What the log calls an answer that nobody was left to be given.
_CLIENT_GONE = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_MAX_LOGGED_PATH = 256
# Who is to be forgotten is not to be kept in the log.
# What they name stays out of the log: users who are to be forgotten, and codes that whoever has them can use.
_NOT_LOGGED = ("/api/users/", "/api/codes/")

# The failures that are answers; any other is a defect.
EXPECTED = (problems.RefusedError, PermissionDeniedError, TransientError, web.HTTPException)


def request_id_of(headers: CIMultiDictProxy[str]) -> str:
    """The client's own id, if it sent a sensible one; else a new one."""
    asked = headers.get(X_REQUEST_ID)
    return asked if asked is not None and _REQUEST_ID.fullmatch(asked) else str(uuid7())


async def _respond(
    request: web.Request, handler: Handler, request_id: str
) -> tuple[web.StreamResponse, Exception | None]:
    """The handler's answer, or one to its failure; and the failure, if nobody has provided for it."""
    try:
        _check_expectation(request)
        return await handler(request), None
    except EXPECTED as expected:
        return Response(problems.from_failure(expected, request_id)), None
    except Exception as unexpected:  # noqa: BLE001 - the border: it goes to the log, and nothing to the client
        return Response(problems.from_failure(unexpected, request_id)), unexpected


class RequestBoundary:
    """The outermost handler."""

    def __init__(self, handler: Handler, records: AccessLog, queue: FairQueue) -> None:
        self._handler = handler
        self._records = records
        self._queue = queue

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; raises nothing but `CancelledError`."""
        return await self._answer(request, self._handler)

    def refusing(self, refusal: problems.RefusedError) -> Handler:
        """A handler for a request that could not even be read: same id, same line, same count."""

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
            # A batch has answers for all its claims at once, and each is about as much work as its request was.
            await self._turn(request)
        except CancelledError:
            self._record(request, _CLIENT_GONE, started, request_id, None)
            raise
        response.headers[X_REQUEST_ID] = request_id
        self._record(request, response.status, started, request_id, defect)
        return response

    async def _turn(self, request: web.Request) -> None:
        if not self._queue.is_free(request.remote):
            await self._queue.turn(request.remote)

    def _record(
        self, request: web.Request, status: int, started: float, request_id: str, defect: Exception | None
    ) -> None:
        route = _route(request)
        self._records.add(
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
    """Refuse an unknown `Expect`; what is known is up to the route."""
    if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
        raise problems.RefusedError(problems.EXPECTATION_FAILED)


def _route(request: web.Request) -> str:
    """The route's template: as many as there are routes, whatever paths are asked for."""
    # Read from where the router puts it: `match_info` promises that there is one, and here there may be none.
    match = request._match_info
    resource = match.route.resource if match is not None else None
    return resource.canonical if resource is not None else UNMATCHED


def _loggable_path(request: web.Request, route: str) -> str:
    """The path as it was sent, still percent-encoded, so that it stays one line; no query, which may be private."""
    path = request.rel_url.raw_path[:_MAX_LOGGED_PATH]
    for beginning in _NOT_LOGGED:
        if route.startswith(beginning):
            return route
        if path.startswith(beginning):
            return f"{beginning}..."
    if path.isascii() and path.isprintable():
        return path
    return path.encode("unicode_escape", "replace").decode("ascii")
