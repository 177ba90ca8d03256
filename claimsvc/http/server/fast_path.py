"""Claims answered without a task of their own.

aiohttp makes a task, a request, a stream and a response of each request; for a claim that costs several times what the
claim itself does. The usual claim (in one piece, on HTTP/1.1, on a connection that has nothing else to do) needs none
of them: from its head and body to the bytes of its answer it takes plain calls, on the same parts that the route is
made of. Whatever is not the usual case is left to aiohttp, before anything was done about it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import HttpVersion11, hdrs
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from claimsvc.domain import ClaimOutcome
from claimsvc.errors import UnavailableError
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import AccessLog
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.request_boundary import EXPECTED, request_id_of
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY, PLAIN_JSON, X_REQUEST_ID
from claimsvc.ports import PendingOutcome

# Two names and what is around them; a longer body is nothing that a claim needs.
_LONGEST_BODY = 1024
# Each of these asks for something that only the long way can do.
_UNUSUAL_HEADERS = (hdrs.EXPECT, hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING, IDEMPOTENCY_KEY)


@dataclass(frozen=True, slots=True)
class FastRoute:
    """What the fast path serves: a POST of a small JSON body at `path`.

    Args:
        path: exactly as it is requested.
        begin: begins the claim that a body asks for, and names its coupon; None where the body leaves it open. Raises
            what the route would answer with a problem.
        reply: renders an outcome for a request id.
    """

    path: str
    begin: Callable[[bytes], tuple[PendingOutcome, str | None]]
    reply: Callable[[ClaimOutcome, str], Reply]


class FastPathClaim:
    """One claim under way: `answer` is what it comes to. `coupon_name` is None where it was left open, or unread."""

    __slots__ = ("_records", "_remote", "_request_id", "_route", "_started", "answer", "coupon_name")

    def __init__(self, request_id: str, remote: str | None, records: AccessLog, route: FastRoute) -> None:
        self._started = time.monotonic()
        self._request_id = request_id
        self._remote = remote
        self._records = records
        self._route = route
        self.coupon_name: str | None = None
        self.answer: PendingOutcome

    def reply(self, *, closes: bool) -> tuple[bytes, bool]:
        """Once it is answered: the message to be sent, and whether it ends the connection. Records the request.

        Args:
            closes: whether it ends the connection in any case.
        """
        answer, request_id = self.answer, self._request_id
        # The client cannot cancel it. Whoever has ended our tasks, to the client that is no defect but an end.
        failure = _stopping() if answer.cancelled() else answer.exception()
        defect = None
        if failure is None:
            reply = self._route.reply(answer.result(), request_id)
        else:
            defect = None if isinstance(failure, EXPECTED) else failure
            reply = problems.from_failure(failure, request_id)
        reply.headers[X_REQUEST_ID] = request_id
        if closes or reply.closes:
            reply.headers[hdrs.CONNECTION] = "close"
        self._records.add(
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
        return reply.in_one_piece(), closes or reply.closes


def _stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")


class FastPath:
    """Begins the claims that need no task."""

    claim_class = FastPathClaim

    def __init__(self, route: FastRoute, records: AccessLog, queue: FairQueue) -> None:
        self.queue = queue
        self._route = route
        self._records = records

    def takes(self, message: object, body: StreamReader) -> bool:
        """Whether the request is a claim, and the usual case."""
        return (
            isinstance(message, RawRequestMessage)
            and message.path == self._route.path
            and message.method == hdrs.METH_POST
            and not message.should_close
            and message.version == HttpVersion11
            and body.is_eof()
            and body.total_bytes <= _LONGEST_BODY
            and body.exception() is None
            and message.headers.get(hdrs.CONTENT_TYPE) in PLAIN_JSON
            and not any(name in message.headers for name in _UNUSUAL_HEADERS)
        )

    def begin(self, message: RawRequestMessage, body: StreamReader, remote: str | None) -> FastPathClaim:
        """Begin a claim that `takes` has said yes to."""
        claim = self.claim_class(request_id_of(message.headers), remote, self._records, self._route)
        try:
            claim.answer, claim.coupon_name = self._route.begin(body.read_nowait())
        except Exception as failure:  # noqa: BLE001 - it is answered like one that comes later
            claim.answer = PendingOutcome()
            claim.answer.set_exception(failure)
        return claim


class NoFastPath(FastPath):
    """Where somebody has to be asked before a claim may begin."""

    def takes(self, message: object, body: StreamReader) -> bool:
        return False
