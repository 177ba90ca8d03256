"""The fast path: usual claims are answered without an asyncio task.

aiohttp creates a task, a request, a stream and a response for each request, which costs several times what the claim
costs. The usual claim (received in one piece, over HTTP/1.1, on an idle connection) needs none of them: plain calls
lead from its head and body to the bytes of its response, through the functions that the route uses too. aiohttp answers
every other request.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiohttp import HttpVersion11, hdrs
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

from claimsvc.domain import ANYBODY, Caller, ClaimOutcome
from claimsvc.errors import UnavailableError
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import AccessLog
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.hosts import AllowedHosts
from claimsvc.http.server.request_boundary import EXPECTED, request_id_of
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import PLAIN_JSON, X_REQUEST_ID
from claimsvc.ports import PendingOutcome

# Enough for two names of maximal length; longer bodies are unusual.
_MAX_BODY_BYTES = 1024
_Result = TypeVar("_Result")

Headers = CIMultiDictProxy[str]
Identify = Callable[[Headers], "Caller | asyncio.Future[Any] | None"]


@dataclass(frozen=True, slots=True)
class FastRoute:
    """The route of the fast path: a POST of a small JSON body to `path`.

    Args:
        path: the exact path; no percent-encoding, no query.
        begin: takes a claim, the request's headers, its body and its caller. Begins the claim by one of its methods
            `wait_for_...`, or raises the exceptions that the route answers with a problem.
        reply: renders an outcome; the second argument is the request id.
        identify: finds a request's caller from its headers; None leaves the request to aiohttp, because something must
            be waited for; a future leads to the caller soon, by `identified`. Raises the exceptions that the route
            answers with a problem. None if everybody may claim.
        identified: finds the caller from the result of the future. Raises as `identify`.
    """

    path: str
    begin: Callable[["FastPathClaim", Headers, bytes, Caller], None]
    reply: Callable[[ClaimOutcome, str], Reply]
    identify: Identify | None = None
    identified: Callable[[Any], Caller] = lambda _: ANYBODY


class FastPathClaim:
    """A claim on the fast path.

    Attributes:
        request_id: the request's id.
        remote: the client's address.
        answer: its pending outcome; unset until the claim has begun.
        coupon_name: None if the body names no coupon, and until the claim has begun.
        shared: the response's headers for pages of other origins; None if there are none.
        added: further headers of the reply, unless the claim fails; None if there are none.
        pending: what it waits for now.

    Args:
        request_id: the request's id.
        remote: the client's address.
        access_log: records the request when it is answered.
        route: begins and renders the claim.
        ended: called with the claim when it can reply.
    """

    __slots__ = (
        "_access_log",
        "_ended",
        "_refusal",
        "_route",
        "_started",
        "added",
        "answer",
        "coupon_name",
        "pending",
        "remote",
        "request_id",
        "shared",
    )
    answer: PendingOutcome
    pending: "asyncio.Future[Any]"

    def __init__(
        self,
        request_id: str,
        remote: str | None,
        access_log: AccessLog,
        route: FastRoute,
        ended: "Ended",
    ) -> None:
        self._started = time.monotonic()
        self.request_id = request_id
        self.remote = remote
        self._access_log = access_log
        self._route = route
        self._ended = ended
        self._refusal: Reply | None = None
        self.coupon_name: str | None = None
        self.shared: Mapping[str, str] | None = None
        self.added: Mapping[str, str] | None = None

    def wait_for_outcome(self, answer: PendingOutcome, coupon_name: str | None = None) -> None:
        """Reply with this outcome once it is there.

        Args:
            answer: the outcome.
            coupon_name: the claim's coupon, for the log; None if the body names none, or if no claim was begun.
        """
        self.answer = self.pending = answer
        self.coupon_name = coupon_name
        answer.add_done_callback(partial(self._ended, self))

    def wait_for(self, pending: "asyncio.Future[_Result]", go_on: Callable[[_Result], None]) -> None:
        """Go on once something else is there.

        Args:
            pending: what is waited for.
            go_on: called with its result. Calls a method of this claim, or raises as `FastRoute.begin`.
        """
        self.pending = pending
        pending.add_done_callback(partial(self._go_on, go_on))

    def refuse(self, refusal: Reply) -> None:
        """Reply with this, although no claim was begun. Only `wait_for` may lead to it."""
        self._refusal = refusal
        self._ended(self, None)

    def fail(self, failure: Exception) -> None:
        """Reply with the problem of a failure."""
        answer = PendingOutcome()
        answer.set_exception(failure)
        self.wait_for_outcome(answer)

    def _go_on(self, go_on: Callable[[_Result], None], pending: "asyncio.Future[_Result]") -> None:
        try:
            go_on(_stopping_if_cancelled(pending))
        except Exception as failure:  # noqa: BLE001 - answered like a failure of the claim
            self.fail(failure)

    def reply(self, *, closes: bool) -> tuple[bytes, bool]:
        """Render the response and record the request. Call it when the claim has ended.

        Args:
            closes: whether the response closes the connection in any case.

        Returns:
            The bytes to send, and whether the response closes the connection.
        """
        request_id, defect, reply = self.request_id, None, self._refusal
        if reply is None:
            answer = self.answer
            # Clients cannot cancel it, so only a shutdown has cancelled it, which is no defect.
            failure = _stopping() if answer.cancelled() else answer.exception()
            if failure is None:
                reply = self._route.reply(answer.result(), request_id)
                if self.added is not None:
                    reply.headers.update(self.added)
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
            remote=self.remote,
            claim=self,
            defect=defect,
        )
        return reply.as_bytes(), closes or reply.closes


def _stopping_if_cancelled(pending: "asyncio.Future[_Result]") -> _Result:
    if pending.cancelled():
        raise _stopping()
    return pending.result()


def _stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")


Ended = Callable[[FastPathClaim, object], None]
"""Called with a claim that can reply. The second argument has no meaning."""


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
        self._identify = route.identify
        self._access_log = access_log

    def takes(self, message: object, body: StreamReader) -> bool:
        """Whether the request is a usual claim."""
        if not isinstance(message, RawRequestMessage):
            return False
        headers = message.headers
        return (
            message.path == self._route.path
            and message.method == hdrs.METH_POST
            and not message.should_close
            and message.version == HttpVersion11
            and body.is_eof()
            and body.total_bytes <= _MAX_BODY_BYTES
            and body.exception() is None
            and headers.get(hdrs.CONTENT_TYPE) in PLAIN_JSON
            # Only aiohttp's path supports these. No loop: it is done for each claim.
            and hdrs.EXPECT not in headers
            and hdrs.CONTENT_ENCODING not in headers
            and hdrs.TRANSFER_ENCODING not in headers
            # aiohttp's path refuses it.
            and (self.hosts is None or self.hosts.refusal(headers) is None)
        )

    def caller_of(self, message: RawRequestMessage) -> "Caller | Exception | asyncio.Future[Any] | None":
        """The caller of a request that `takes` is true for, or why it is refused; None leaves it to aiohttp.

        A future leads to the caller by `identified`. Nobody cancels it.
        """
        if self._identify is None:
            return ANYBODY
        try:
            return self._identify(message.headers)
        except Exception as failure:  # noqa: BLE001 - answered like a failure of the claim
            return failure

    def identified(self, found: "asyncio.Future[Any]") -> Caller | Exception:
        """The caller, or why it is refused, once the future that `caller_of` has returned is done."""
        try:
            return self._route.identified(found.result())
        except Exception as failure:  # noqa: BLE001 - answered like a failure of the claim
            return failure

    def begin(
        self,
        message: RawRequestMessage,
        raw: bytes,
        remote: str | None,
        caller: Caller | Exception,
        ended: Ended,
    ) -> FastPathClaim:
        """Begin a claim.

        Args:
            message: the request's head.
            raw: the complete body.
            remote: the client's address.
            caller: from `caller_of`.
            ended: called with the claim when it can reply, in a later turn of the event loop.
        """
        claim = self.claim_class(request_id_of(message.headers), remote, self._access_log, self._route, ended)
        if self.cors is not None:
            claim.shared = self.cors.headers(message.headers)
        if isinstance(caller, Exception):
            claim.fail(caller)
            return claim
        try:
            self._route.begin(claim, message.headers, raw, caller)
        except Exception as failure:  # noqa: BLE001 - answered like a failure of the claim
            claim.fail(failure)
        return claim
