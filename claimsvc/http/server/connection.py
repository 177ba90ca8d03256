"""HTTP connections: requests that aiohttp refuses by itself are answered, logged and counted like all others.

aiohttp's parser turns a malformed request into an `_ErrInfo` message, which its protocol answers in plain text, with a
traceback in the log. Only the protocol class can be replaced, so this module alone uses aiohttp's private names.
"""

import asyncio
from functools import partial
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo, _RequestHandler

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.server.aiohttp_internals import forget_exception, is_ignored_upgrade
from claimsvc.http.server.fast_path import FastPath, FastPathClaim
from claimsvc.http.server.problems import HEADERS_TOO_LARGE, REQUEST_TIMEOUT, URI_TOO_LONG, RefusedError
from claimsvc.http.server.request_boundary import RequestBoundary
from claimsvc.http.server.under_way import UnderWay
from claimsvc.http.server.unfinished import MAX_BODY_BUFFER_BYTES, UnfinishedRequests
from claimsvc.http.server.wire import MAX_HEAD_BYTES, MAX_LINE_BYTES

_VERSIONS = (HttpVersion11, HttpVersion10)
READ_BUFFER_BYTES = 65_536
# Input is parsed in pieces of this size, so that what the parser keeps of an unfinished head is known that exactly.
_PIECE_BYTES = 16_384


class ConnectionServer(web.Server):
    """The server as its connections see it; `claimsvc.http.runner` extends it."""

    is_stopping = False
    """Whether every response closes its connection."""
    unfinished: UnfinishedRequests
    """What all connections keep of requests that have not arrived completely."""


class HttpConnection(web.RequestHandler):
    """One client connection. Runs usual claims on the fast path, and leaves all other requests to aiohttp's task.

    Args:
        manager: the server that the connection belongs to.
        boundary: answers requests that could not be parsed.
        fast_path: serves claims without a task.
        head_timeout_seconds: how long a request's headers may take to arrive.
        under_way: the cap on claims of each address; None without one.
        kwargs: for aiohttp's handler.
    """

    __slots__ = (
        "_body",
        "_boundary",
        "_claim",
        "_counted_bytes",
        "_fast_path",
        "_head_timeout_seconds",
        "_head_timer",
        "_ignores_upgrade",
        "_place",
        "_remote",
        "_rest",
        "_server",
        "_started_head",
        "_turn",
        "_under_way",
        "_unparsed_bytes",
        "_unsent_bytes",
        "_unsent_since",
        "_wire",
    )

    def __init__(
        self,
        manager: ConnectionServer,
        boundary: RequestBoundary,
        fast_path: FastPath,
        head_timeout_seconds: float,
        under_way: UnderWay | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(manager, **kwargs)
        self._server = manager
        self._boundary = boundary
        self._fast_path = fast_path
        # The body of the last request that was read.
        self._body: StreamReader = EMPTY_PAYLOAD
        # The claim on the fast path. aiohttp's task is idle meanwhile.
        self._claim: FastPathClaim | None = None
        # The place in the fair queue of a claim that is about to begin or to be answered.
        self._turn: asyncio.Future[None] | None = None
        self._remote: str | None = None
        self._under_way = under_way
        # The address whose place the claim has.
        self._place: str | None = None
        # The transport until it is lost. aiohttp drops its reference on closing, while responses are still unsent.
        self._wire: asyncio.Transport | None = None
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._head_timeout_seconds = head_timeout_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._started_head = False
        # Input after a head that could not be parsed; it is discarded.
        self._rest: StreamReader | None = None
        # Whether the last request asks for an upgrade that is ignored, and its end was not seen yet.
        self._ignores_upgrade = False
        # What the parser keeps of the next requests, and what of all that this connection keeps was counted.
        self._unparsed_bytes = 0
        self._counted_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._remote = self.peername[0] if self.peername else None
        self._wire = self.transport
        self._head_timer = self._loop.call_later(self._head_timeout_seconds, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._wire = None
        self._count(0)
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.feed_eof()

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PIECE_BYTES:
            self._parse(data)
            return
        for start in range(0, len(data), _PIECE_BYTES):
            self._parse(data[start : start + _PIECE_BYTES])

    def _parse(self, data: bytes) -> None:
        if self._rest is not None:
            return
        is_of_body, body_bytes = not self._body.is_eof(), self._body.total_bytes
        heads = self._request_count
        # Hide the waiter from aiohttp, so that its task is woken only for requests that need it; see `_begin_next`.
        waiter, self._waiter = self._waiter, None
        super().data_received(data)
        self._waiter = waiter
        if self._request_count != heads:
            self._started_head = False
            self._stop_head_timer()
            self._refuse_other_versions()
            last, self._body = self._messages[-1]
            if isinstance(last, _ErrInfo):
                self._stop_reading(last)
            elif last.upgrade:
                self._ignores_upgrade = is_ignored_upgrade(last)
                body_bytes = 0
            if self._ignores_upgrade and self._body.is_eof():
                self._end_ignored_upgrade(data, self._body.total_bytes - body_bytes, has_head=True)
            self._begin_next()
        elif self._ignores_upgrade and is_of_body and self._body.is_eof():
            self._end_ignored_upgrade(data, self._body.total_bytes - body_bytes, has_head=False)
        elif data and self._awaits_head():
            self._started_head = True
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._head_timeout_seconds, self._head_is_late)
        is_complete = (self._request_count != heads or is_of_body or not data) and self._body.is_eof()
        if not is_complete or self._counted_bytes:
            self._count_unfinished(data, has_begun=self._request_count != heads or not data, is_of_body=is_of_body)

    def _end_ignored_upgrade(self, data: bytes, body_bytes: int, *, has_head: bool) -> None:
        """Make a request to upgrade the last one, unless it is certain that nothing was sent after it.

        aiohttp's parser drops what arrives together with the end of a request whose `Upgrade` it does not support, and
        takes what arrives later for a request. Its client would wait for answers that never come, and a request could
        be hidden in another one's body.

        Args:
            data: what has arrived, with the end of the request.
            body_bytes: how much of it was of the request's body.
            has_head: whether the end of the request's head was in it.
        """
        self._ignores_upgrade = False
        start = data.find(b"\r\n\r\n") + 4 if has_head else 0
        if (has_head and start < 4) or start + body_bytes != len(data):
            self._rest = StreamReader(self, READ_BUFFER_BYTES, loop=self._loop)

    def _count_unfinished(self, data: bytes, *, has_begun: bool, is_of_body: bool) -> None:
        """Count what is kept of requests that have not arrived completely.

        Args:
            data: what has arrived.
            has_begun: whether a head was complete with it.
            is_of_body: whether it began within a body.
        """
        # With so many requests waiting the parser stops, and keeps what follows.
        is_full = len(self._messages) >= self._max_msg_queue_size
        if has_begun and not is_full:
            self._unparsed_bytes = 0
        elif is_full or not is_of_body:
            self._unparsed_bytes += len(data)
        if self._unparsed_bytes > MAX_HEAD_BYTES and not (is_full or self._buffer_paused):
            self._refuse_head(RefusedError(HEADERS_TOO_LARGE, close=True))
            return
        body_bytes = 0 if self._body.is_eof() else min(self._body.total_bytes, MAX_BODY_BUFFER_BYTES)
        self._count(self._unparsed_bytes + body_bytes)

    def _count(self, kept_bytes: int) -> None:
        if kept_bytes != self._counted_bytes:
            self._counted_bytes = kept_bytes
            self._server.unfinished.keeps(self, self._remote, kept_bytes)

    def refuse_unfinished(self) -> None:
        """Refuse the request that has not arrived completely, and free what is kept of it; see `UnfinishedRequests`."""
        refusal = RefusedError(REQUEST_TIMEOUT, "Too many requests are arriving in parts; send it whole.", close=True)
        self._counted_bytes = 0
        if self._body.is_eof():
            self._refuse_head(refusal)
        elif self._current_request is None and not self._messages:
            self.force_close()  # its request is answered, and the rest of the body is being discarded
        else:
            # Whoever reads the body raises it. What still arrives is read and discarded by `finish_response`.
            self._body.set_exception(refusal)
            self._rest = self._body

    def _refuse_head(self, refusal: RefusedError) -> None:
        """Answer the head that is arriving with a refusal, as the connection's last request."""
        self._stop_head_timer()
        # The parser keeps what has arrived of the head.
        self._parser = None
        self._unparsed_bytes = 0
        self._count(0)
        self._rest = StreamReader(self, READ_BUFFER_BYTES, loop=self._loop)
        self._messages.append((_ErrInfo(refusal.problem.status, refusal, ""), self._rest))
        self._begin_next()

    def _awaits_head(self) -> bool:
        """Whether arriving data belongs to a head, and not to the body of a request that was begun."""
        return self._request_count == 0 or (
            self._waiter is not None and not self._waiter.done() and self._claim is None and self._turn is None
        )

    def _begin_next(self) -> None:
        """Begin the next request: a usual claim on the fast path, any other in aiohttp's task."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._claim or self._turn or not self._messages:
            return
        message, body = self._messages[0]
        is_at_rest = len(self._messages) == 1 and not (self._buffer_paused or self._upgraded or self.writing_paused)
        if not is_at_rest or self._server.is_stopping or not self._fast_path.takes(message, body):
            waiter.set_result(None)
        elif self._under_way is not None and not self._take_place(self._under_way, message):
            waiter.set_result(None)  # aiohttp's task waits for a place
        elif self._fast_path.queue.is_free(self._remote):
            self._begin_claim()
        else:
            self._turn = self._fast_path.queue.turn(self._remote)
            self._turn.add_done_callback(self._begin_claim)

    def _take_place(self, under_way: UnderWay, message: Any) -> bool:
        address = under_way.address_of(self._remote, message.headers)
        self._place = address if under_way.enter(address) else None
        return address is None or self._place is not None

    def _leave_place(self) -> None:
        if self._under_way is not None:
            self._under_way.leave(self._place)
            self._place = None

    def _begin_claim(self, _: object = None) -> None:
        self._turn = None
        message, body = self._messages[0]
        if self._wire is None or self._force_close or isinstance(message, _ErrInfo):
            self._leave_place()
            return  # the connection ended while the request waited for its turn
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        self._server.requests_count += 1
        self._claim = self._fast_path.begin(message, body, self._remote)
        self._claim.answer.add_done_callback(partial(self._end_claim, self._claim))

    def _end_claim(self, claim: FastPathClaim, _: object) -> None:
        # A batch decides its claims together, and answering each costs as much as beginning it did: queue again.
        if self._fast_path.queue.is_free(self._remote):
            self._reply_to(claim)
        else:
            self._turn = self._fast_path.queue.turn(self._remote)
            self._turn.add_done_callback(partial(self._reply_to, claim))

    def _reply_to(self, claim: FastPathClaim, _: object = None) -> None:
        self._claim = self._turn = None
        self._leave_place()
        try:
            message, closes = claim.reply(closes=self._close or self._server.is_stopping or self._is_last())
        except Exception as error:
            # As in `handle_error`: no response can be trusted.
            self.logger.error("The answer could not be made", exc_info=error)
            self.force_close()
            return
        if self.transport is None:
            return  # the client has disconnected; its claim is kept
        self.transport.write(message)
        if closes:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._begin_next()

    def _is_last(self) -> bool:
        """Whether the request that is answered now is the last one that is understood."""
        return self._rest is not None and not self._messages

    def _process_keepalive(self) -> None:
        if self._claim or self._turn:  # busy, although aiohttp's task is idle
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def close(self) -> None:
        """Accept no further request, and close the connection after the last response: immediately, if it is idle.

        aiohttp would go on reading for some iterations of the event loop, and drop the requests it read. Unread input
        resets the connection instead, which shows the client that its request was not accepted.
        """
        is_idle = self._awaits_head() and not self._messages
        super().close()
        if is_idle:
            self.force_close()
        else:
            self._pause_reading()

    def _pause_reading(self) -> None:
        """Read nothing more, unless the body of the last request is incomplete."""
        if self.transport is not None and not self.transport.is_closing() and self._body.is_eof():
            self.transport.pause_reading()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        ends_at = None if timeout is None else self._loop.time() + timeout
        while (pending := self._pending()) is not None:
            left = None if ends_at is None else max(ends_at - self._loop.time(), 0)
            done, _ = await asyncio.wait([pending], timeout=left)
            if not done:
                break
            await asyncio.sleep(0)  # lets its callbacks run
        await super().shutdown(None if ends_at is None else max(ends_at - self._loop.time(), 0))

    def _pending(self) -> "asyncio.Future[Any] | None":
        """What the claim on the fast path waits for; None if there is none."""
        if self._turn is not None or self._claim is None:
            return self._turn
        return self._claim.answer

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if not self._started_head:
            # There is no request to answer.
            self.force_close()
            return
        late = RefusedError(REQUEST_TIMEOUT, "The request's headers did not arrive in time.", close=True)
        error = _ErrInfo(REQUEST_TIMEOUT.status, late, "")
        self._messages.append((error, EMPTY_PAYLOAD))
        self._stop_reading(error)
        waiter.set_result(None)

    def _refuse_other_versions(self) -> None:
        """Refuse HTTP/0.9 and HTTP/2.0, which the parser accepts, and in which aiohttp would respond."""
        for place, (message, _) in enumerate(self._messages):
            if not isinstance(message, _ErrInfo) and message.version not in _VERSIONS:
                refusal = RefusedError(BAD_REQUEST, "The HTTP version must be 1.1 or 1.0.", close=True)
                self._messages[place] = (_ErrInfo(BAD_REQUEST.status, refusal, ""), EMPTY_PAYLOAD)

    def _stop_reading(self, error: _ErrInfo) -> None:
        """Make the error the connection's last message: nothing after it can be parsed.

        The message gets a body without an end, so that aiohttp lingers: it discards input for a while before it closes.
        Closing with unread input would reset the connection, and the client could lose the response.
        """
        self._rest = StreamReader(self, READ_BUFFER_BYTES, loop=self._loop)
        self._messages[-1] = (error, self._rest)
        if self._current_request is not None:
            # The request waits for chunks that turned out to be malformed; aiohttp would leave it waiting.
            self._current_request._cancel(web.RequestPayloadError("malformed"))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._server.is_stopping or self._is_last():
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if request.content is self._rest:
            # Its refusal is sent; aiohttp, which lingers now, would raise it again.
            forget_exception(request.content)
        if self.writing_paused:
            # aiohttp would begin the next request, and buffer responses without limit for a client that never reads.
            await self._drain_helper()
        if not resp.keep_alive and not request.content.is_eof():
            # The client sees the end of the response now, and need not wait while the server lingers.
            transport = self.transport
            if transport is not None and transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        if self._close or self._force_close:
            self._pause_reading()
        return finished

    def abort_if_stalled(self, now: float, timeout_seconds: float) -> None:
        """Abort the connection if its client blocks it by not reading.

        Args:
            now: the time of the event loop's clock, in seconds.
            timeout_seconds: how long the client may read nothing.
        """
        wire = self._wire
        if wire is None or not (self.writing_paused or wire.is_closing()):
            self._unsent_bytes = 0
            return
        unsent = wire.get_write_buffer_size()
        if not self._unsent_bytes or unsent < self._unsent_bytes:
            self._unsent_bytes, self._unsent_since = unsent, now
        elif now - self._unsent_since >= timeout_seconds:
            wire.abort()

    def _make_error_handler(self, err_info: _ErrInfo) -> _RequestHandler:
        return self._boundary.refusing(_refusal(err_info.exc))  # type: ignore[return-value]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # The boundary handles every exception, so this one was raised by the boundary itself: no response can be
        # trusted.
        self.logger.error("The answer could not be made", exc_info=exc)
        raise ConnectionError("the response could not be created") from exc


def _refusal(error: BaseException) -> RefusedError:
    """The refusal of a request that could not be parsed. It shows only texts that contain no part of the request."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, LineTooLong):
        return RefusedError(URI_TOO_LONG if error.args[1] == MAX_LINE_BYTES else HEADERS_TOO_LARGE, close=True)
    if isinstance(error, BadHttpMethod):
        return RefusedError(
            BAD_REQUEST, "The request line must begin with an HTTP method, as in `GET /livez HTTP/1.1`.", close=True
        )
    if type(error) is BadHttpMessage:
        # llhttp's reason is a constant; the lines after the first quote the request.
        reason = error.message.partition(":\n")[0]
        if reason == "Too many headers received":
            return RefusedError(HEADERS_TOO_LARGE, close=True)
        return RefusedError(BAD_REQUEST, f"The request is not valid HTTP: {reason.rstrip('.')}.", close=True)
    return RefusedError(BAD_REQUEST, "The request is not valid HTTP.", close=True)
