"""Claims answered without a task of their own.

aiohttp makes a task, a request, a stream and a response of each request; for a claim that costs several times what the
claim itself does. The usual claim (in one piece, on HTTP/1.1, on a connection that has nothing else to do) needs none
of them: from its head and body to the bytes of its answer it takes plain calls, on the same parts that the route is
made of. Whatever is not the usual case is left to aiohttp, before anything was done about it.
"""

import asyncio
import time

from aiohttp import HttpVersion11, hdrs
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from claimsvc.api import problems
from claimsvc.api.bodies import PLAIN_JSON, parse_body
from claimsvc.api.middlewares import EXPECTED, X_REQUEST_ID, Records, request_id_of
from claimsvc.api.routes import CLAIM_PATH, claim_reply
from claimsvc.api.schemas import ClaimCoupon
from claimsvc.domain import Outcome
from claimsvc.ports import Claims

# Two names and what is around them; a longer body is nothing that a claim needs.
_LONGEST_BODY = 1024
# Each of these asks for something that only the whole of aiohttp can do.
_UNUSUAL_HEADERS = (hdrs.EXPECT, hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING)


class ExpressClaim:
    """One claim under way: `answer` is what it comes to."""

    __slots__ = ("_records", "_remote", "_request_id", "_started", "answer")

    def __init__(self, request_id: str, remote: str | None, records: Records) -> None:
        self._started = time.perf_counter()
        self._request_id = request_id
        self._remote = remote
        self._records = records
        self.answer: asyncio.Future[Outcome]

    def reply(self) -> tuple[bytes, bool]:
        """Once it is answered: the message to be sent, and whether it ends the connection. Records the request."""
        answer, request_id = self.answer, self._request_id
        failure = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        defect = None
        if failure is None:
            reply = claim_reply(answer.result(), request_id)
        else:
            defect = None if isinstance(failure, EXPECTED) else failure
            reply = problems.from_failure(failure, request_id)
        reply.headers[X_REQUEST_ID] = request_id
        self._records.add(
            method=hdrs.METH_POST,
            path=CLAIM_PATH,
            route=CLAIM_PATH,
            status=reply.head.status,
            seconds=time.perf_counter() - self._started,
            request_id=request_id,
            remote=self._remote,
            defect=defect,
        )
        return reply.in_one_piece(), reply.closes


class Express:
    """Begins the claims that need no task."""

    def __init__(self, claims: Claims, records: Records) -> None:
        self._claims = claims
        self._records = records

    def begin(self, message: RawRequestMessage, body: StreamReader, remote: str | None) -> ExpressClaim | None:
        """The claim that the request is; None if it is another request, or not the usual case."""
        headers = message.headers
        if (
            message.path != CLAIM_PATH
            or message.method != hdrs.METH_POST
            or message.should_close
            or message.version != HttpVersion11
            or not body.is_eof()
            or body.total_bytes > _LONGEST_BODY
            or body.exception() is not None
            or headers.get(hdrs.CONTENT_TYPE) not in PLAIN_JSON
            or any(name in headers for name in _UNUSUAL_HEADERS)
        ):
            return None
        claim = ExpressClaim(request_id_of(headers), remote, self._records)
        try:
            asked = parse_body(ClaimCoupon, body.read_nowait())
            claim.answer = self._claims.claim(asked.coupon_name, asked.user_id)
        except Exception as failure:  # noqa: BLE001 - it is answered like one that comes later
            claim.answer = asyncio.get_running_loop().create_future()
            claim.answer.set_exception(failure)
        return claim
