"""The fast path: usual claims are answered without an asyncio task.

aiohttp creates a task, a request, a stream and a response for each request, which costs several times what the claim
costs. The usual claim (received in one piece, over HTTP/1.1, on an idle connection) needs none of them: plain calls
lead from its head and body to the bytes of its response, through the functions that the route uses too. aiohttp answers
every other request.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import HttpVersion11, hdrs
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from claimsvc.domain import ClaimOutcome
from claimsvc.errors import UnavailableError
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import AccessLog
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.hosts import AllowedHosts
from claimsvc.http.server.request_boundary import EXPECTED, request_id_of
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY, PLAIN_JSON, X_REQUEST_ID
from claimsvc.ports import PendingOutcome

# Enough for two names of maximal length; longer bodies are unusual.
_MAX_BODY_BYTES = 1024
# Only aiohttp's path supports these.
_UNUSUAL_HEADERS = (hdrs.EXPECT, hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING, IDEMPOTENCY_KEY)


@dataclass(frozen=True, slots=True)
class FastRoute:
    """The route of the fast path: a POST of a small JSON body to `path`.

    Args:
        path: the exact path; no percent-encoding, no query.
        begin: takes the body and begins its claim. Returns the pending outcome, and the coupon's name or None if the
            body names no coupon. Raises the exceptions that the route answers with a problem.
        reply: renders an outcome; the second argument is the request id.
    """

    path: str
    begin: Callable[[bytes], tuple[PendingOutcome, str | None]]
    reply: Callable[[ClaimOutcome, str], Reply]


class FastPathClaim:
    """A claim on the fast path.

    Attributes:
        answer: its pending outcome.
        coupon_name: None if the body names no coupon.
        shared: the response's headers for pages of other origins; None if there are none.

    Args:
        request_id: the request's id.
        remote: the client's address.
        access_log: records the request when it is answered.
        route: begins and renders the claim.
    """

    __slots__ = ("_access_log", "_remote", "_request_id", "_route", "_started", "answer", "coupon_name", "shared")

    def __init__(self, request_id: str, remote: str | None, access_log: AccessLog, route: FastRoute) -> None:
        self._started = time.monotonic()
        self._request_id = request_id
        self._remote = remote
        self._access_log = access_log
        self._route = route
        self.coupon_name: str | None = None
        self.shared: Mapping[str, str] | None = None
        self.answer: PendingOutcome

    def reply(self, *, closes: bool) -> tuple[bytes, bool]:
        """Render the response and record the request. Call it when `answer` is done.

        Args:
            closes: whether the response closes the connection in any case.

        Returns:
            The bytes to send, and whether the response closes the connection.
        """
        answer, request_id = self.answer, self._request_id
        # Clients cannot cancel it, so only a shutdown has cancelled it, which is no defect.
        failure = _stopping() if answer.cancelled() else answer.exception()
        defect = None
        if failure is None:
            reply = self._route.reply(answer.result(), request_id)
        else:
            defect = None if isinstance(failure, EXPECTED) else failure
            reply = problems.from_failure(failure, request_id)
        reply.headers[X_REQUEST_ID] = request_id
        if self.shared is not None:
            reply.headers.update(self.shared)
        if closes or reply.closes:
            reply.headers[hdrs.CONNECTION] = "close"
        self._access_log.add(
            method=hdrs.METH_POST,
            path=self._route.path,
            route=self._route.path,
            status=reply.head.status,
            started=self._started,
            request_id=request_id,
            remote=self._remote,
            claim=self,
            defect=defect,
        )
        return reply.as_bytes(), closes or reply.closes


def _stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")


class FastPath:
    """Begins usual claims without a task.

    Args:
        route: begins and renders claims.
        access_log: records requests.
        queue: orders requests fairly between addresses.

    Attributes:
        cors: adds headers for pages of other origins; None if there are none.
        hosts: which hosts claims may be addressed to; None for all.
    """

    claim_class = FastPathClaim
    cors: Cors | None = None
    hosts: AllowedHosts | None = None

    def __init__(self, route: FastRoute, access_log: AccessLog, queue: FairQueue) -> None:
        self.queue = queue
        self._route = route
        self._access_log = access_log

    def takes(self, message: object, body: StreamReader) -> bool:
        """Whether the request is a usual claim."""
        return (
            isinstance(message, RawRequestMessage)
            and message.path == self._route.path
            and message.method == hdrs.METH_POST
            and not message.should_close
            and message.version == HttpVersion11
            and body.is_eof()
            and body.total_bytes <= _MAX_BODY_BYTES
            and body.exception() is None
            and message.headers.get(hdrs.CONTENT_TYPE) in PLAIN_JSON
            and not any(name in message.headers for name in _UNUSUAL_HEADERS)
            # aiohttp's path refuses it.
            and (self.hosts is None or self.hosts.refusal(message.headers) is None)
        )

    def begin(self, message: RawRequestMessage, body: StreamReader, remote: str | None) -> FastPathClaim:
        """Begin a claim for which `takes` is true.

        Args:
            message: the request's head.
            body: the complete body.
            remote: the client's address.
        """
        claim = self.claim_class(request_id_of(message.headers), remote, self._access_log, self._route)
        if self.cors is not None:
            claim.shared = self.cors.headers(message.headers)
        try:
            claim.answer, claim.coupon_name = self._route.begin(body.read_nowait())
        except Exception as failure:  # noqa: BLE001 - answered like a failure of the claim
            claim.answer = PendingOutcome()
            claim.answer.set_exception(failure)
        return claim


class NoFastPath(FastPath):
    """Leaves all requests to aiohttp, because tokens or quotas must be checked before a claim begins."""

    def takes(self, message: object, body: StreamReader) -> bool:
        return False
