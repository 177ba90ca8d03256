"""HTTP below the application: what aiohttp refuses by itself is answered, logged and counted like everything else.

aiohttp's parser turns malformed requests into `_ErrInfo` messages, and its protocol answers them in plain text with a
traceback in the log. The one hook it leaves is the protocol class, so this file is the only one that knows its inside.
"""

import asyncio
from functools import partial
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo, _RequestHandler

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.server.fast_path import FastPath, FastPathClaim
from claimsvc.http.server.problems import HEADERS_TOO_LARGE, REQUEST_TIMEOUT, URI_TOO_LONG, RefusedError
from claimsvc.http.server.request_boundary import RequestBoundary

# They differ so that a line that is too long can be told from a header that is: aiohttp's error names the limit only.
MAX_LINE_BYTES = 8190
MAX_HEADER_BYTES = 8191
_VERSIONS = (HttpVersion11, HttpVersion10)
READ_BUFFER_BYTES = 65_536


class ConnectionServer(web.Server):
    """What its connections know of the server; see `server.py`."""

    is_stopping = False
    """Whether every answer is the last one of its connection."""


class HttpConnection(web.RequestHandler):
    """One connection."""

    __slots__ = (
        "_body",
        "_boundary",
        "_claim",
        "_fast_path",
        "_head_timeout_seconds",
        "_head_timer",
        "_remote",
        "_rest",
        "_server",
        "_started_head",
        "_turn",
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
        **kwargs: Any,
    ) -> None:
        super().__init__(manager, **kwargs)
        self._server = manager
        self._boundary = boundary
        self._fast_path = fast_path
        # Of the last request that was read.
        self._body: StreamReader = EMPTY_PAYLOAD
        # The claim that is under way here without aiohttp's task, which waits for a next request all the while.
        self._claim: FastPathClaim | None = None
        # What such a claim waits for before it begins, or is answered, if others are to have their turn first.
        self._turn: asyncio.Future[None] | None = None
        self._remote: str | None = None
        # The transport until it is lost; aiohttp forgets it when it begins to close, with answers still to be sent.
        self._wire: asyncio.Transport | None = None
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._head_timeout_seconds = head_timeout_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._started_head = False
        # What follows a head that could not be read: it has no meaning, and is thrown away.
        self._rest: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._remote = self.peername[0] if self.peername else None
        self._wire = self.transport
        self._head_timer = self._loop.call_later(self._head_timeout_seconds, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._wire = None
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.feed_eof()

    def data_received(self, data: bytes) -> None:
        if self._rest is not None:
            return
        heads = self._request_count
        # Held back, so that aiohttp's task is not woken for what it need not do; see `_begin_next`.
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
            self._begin_next()
        elif data and self._awaits_head():
            self._started_head = True
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._head_timeout_seconds, self._head_is_late)

    def _awaits_head(self) -> bool:
        """Whether what arrives is of a head, and not of the body of a request that is, or was, being answered."""
        return self._request_count == 0 or (
            self._waiter is not None and not self._waiter.done() and self._claim is None and self._turn is None
        )

    def _begin_next(self) -> None:
        """Begin what waits to be answered: a claim by itself, anything else by aiohttp's task."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._claim or self._turn or not self._messages:
            return
        message, body = self._messages[0]
        is_at_rest = len(self._messages) == 1 and not (self._buffer_paused or self._upgraded or self.writing_paused)
        if not is_at_rest or self._server.is_stopping or not self._fast_path.takes(message, body):
            waiter.set_result(None)
        elif self._fast_path.queue.is_free(self._remote):
            self._begin_claim()
        else:
            self._turn = self._fast_path.queue.turn(self._remote)
            self._turn.add_done_callback(self._begin_claim)

    def _begin_claim(self, _: object = None) -> None:
        self._turn = None
        message, body = self._messages[0]
        if self._parser is None or self._force_close or isinstance(message, _ErrInfo):
            return  # the connection ended while it waited for its turn
        self._messages.popleft()
        self._parser.message_consumed()
        self._server.requests_count += 1
        self._claim = self._fast_path.begin(message, body, self._remote)
        self._claim.answer.add_done_callback(partial(self._end_claim, self._claim))

    def _end_claim(self, claim: FastPathClaim, _: object) -> None:
        # All of a batch are decided at once; what is left to do for each of them is as much as to begin it was.
        if self._fast_path.queue.is_free(self._remote):
            self._reply_to(claim)
        else:
            self._turn = self._fast_path.queue.turn(self._remote)
            self._turn.add_done_callback(partial(self._reply_to, claim))

    def _reply_to(self, claim: FastPathClaim, _: object = None) -> None:
        self._claim = self._turn = None
        try:
            message, closes = claim.reply(closes=self._close or self._server.is_stopping)
        except Exception as error:
            # As in `handle_error`: no answer can be trusted.
            self.logger.error("The answer could not be made", exc_info=error)
            self.force_close()
            return
        if self.transport is None:
            return  # the client is gone; its claim stands
        self.transport.write(message)
        if closes:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._begin_next()

    def _process_keepalive(self) -> None:
        if self._claim or self._turn:  # not idle, though aiohttp's task is
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def close(self) -> None:
        """Take no further request, and end the connection once the last one is answered: at once, if it is.

        aiohttp would go on reading for some turns of the event loop, and drop what it has read. What is left unread
        resets the connection instead, which tells the client that its request was not accepted.
        """
        is_idle = self._awaits_head() and not self._messages
        super().close()
        if is_idle:
            self.force_close()
        else:
            self._read_no_more()

    def _read_no_more(self) -> None:
        """Unless the body of the last request is still to come."""
        if self.transport is not None and not self.transport.is_closing() and self._body.is_eof():
            self.transport.pause_reading()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        ends_at = None if timeout is None else self._loop.time() + timeout
        while (waits_for := self._under_way()) is not None:
            left = None if ends_at is None else max(ends_at - self._loop.time(), 0)
            done, _ = await asyncio.wait([waits_for], timeout=left)
            if not done:
                break
            await asyncio.sleep(0)  # until the callbacks have gone on from there
        await super().shutdown(None if ends_at is None else max(ends_at - self._loop.time(), 0))

    def _under_way(self) -> "asyncio.Future[Any] | None":
        """What a claim without a task waits for now."""
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
            # Nothing was asked, so nothing is to be answered.
            self.force_close()
            return
        late = RefusedError(REQUEST_TIMEOUT, "The request's headers did not arrive in time.", close=True)
        error = _ErrInfo(REQUEST_TIMEOUT.status, late, "")
        self._messages.append((error, EMPTY_PAYLOAD))
        self._stop_reading(error)
        waiter.set_result(None)

    def _refuse_other_versions(self) -> None:
        """The parser also takes HTTP/0.9 and HTTP/2.0, in which aiohttp would then answer."""
        for place, (message, _) in enumerate(self._messages):
            if not isinstance(message, _ErrInfo) and message.version not in _VERSIONS:
                refusal = RefusedError(BAD_REQUEST, "Only HTTP/1.1 and HTTP/1.0 are spoken here.", close=True)
                self._messages[place] = (_ErrInfo(BAD_REQUEST.status, refusal, ""), EMPTY_PAYLOAD)

    def _stop_reading(self, error: _ErrInfo) -> None:
        """Take the error for the connection's last message: nothing after it can be understood.

        It gets a body that does not end, so that aiohttp lingers: it throws away what still comes, for a while,
        because closing with something unread resets the connection, and the client would not see the answer.
        """
        self._rest = StreamReader(self, READ_BUFFER_BYTES, loop=self._loop)
        self._messages[-1] = (error, self._rest)
        if self._current_request is not None:
            # Its chunks turned out to be malformed while it waits for them; aiohttp would leave it waiting.
            self._current_request._cancel(web.RequestPayloadError("malformed"))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._server.is_stopping:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self.writing_paused:
            # aiohttp would take the next request. Whoever sends and never reads would have its answers kept for it
            # without end.
            await self._drain_helper()
        if not resp.keep_alive and not request.content.is_eof():
            # The client need not wait for us to linger: it sees the end of the answer at once.
            transport = self.transport
            if transport is not None and transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        if self._close or self._force_close:
            self._read_no_more()
        return finished

    def cut_off_if_unread(self, now: float, timeout_seconds: float) -> None:
        """End the connection if its client has taken nothing for so long of what keeps it from going on."""
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
        # The boundary lets nothing through, so what comes here broke in the boundary itself: no answer can be
        # trusted.
        self.logger.error("The answer could not be made", exc_info=exc)
        raise ConnectionError("the answer could not be made") from exc


def _refusal(error: BaseException) -> RefusedError:
    """What a request that the parser refused is answered. Only texts that contain nothing of the request are shown."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, LineTooLong):
        return RefusedError(URI_TOO_LONG if error.args[1] == MAX_LINE_BYTES else HEADERS_TOO_LARGE, close=True)
    if isinstance(error, BadHttpMethod):
        return RefusedError(BAD_REQUEST, "The request line names no HTTP method.", close=True)
    if type(error) is BadHttpMessage:
        # llhttp's reasons are constants; what follows the first line is the request.
        reason = error.message.partition(":\n")[0]
        if reason == "Too many headers received":
            return RefusedError(HEADERS_TOO_LARGE, close=True)
        return RefusedError(BAD_REQUEST, f"The request is not valid HTTP: {reason.rstrip('.')}.", close=True)
    return RefusedError(BAD_REQUEST, "The request is not valid HTTP.", close=True)
