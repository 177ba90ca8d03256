"""What arrives on a connection: heads and bodies in pieces, too late, too much, or malformed.

aiohttp's parser turns a malformed request into an `_ErrInfo` message, which its protocol answers in plain text, with a
traceback in the log. Only the protocol class can be replaced, so this module and `connection` alone use aiohttp's
private names.
"""

import asyncio
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.server.aiohttp_internals import is_ignored_upgrade, limit_waiting_requests
from claimsvc.http.server.problems import HEADERS_TOO_LARGE, REQUEST_TIMEOUT, URI_TOO_LONG, RefusedError
from claimsvc.http.server.unfinished import MAX_BODY_BUFFER_BYTES, UnfinishedRequests
from claimsvc.http.server.wire import MAX_HEAD_BYTES, MAX_LINE_BYTES

_VERSIONS = (HttpVersion11, HttpVersion10)
READ_BUFFER_BYTES = 65_536
# Input is parsed in pieces of this size, so that what the parser keeps of an unfinished head is known that exactly.
_PIECE_BYTES = 16_384
# Requests that a connection reads ahead while another one is under way. More would only wait in memory.
_MAX_WAITING = 2
limit_waiting_requests(_MAX_WAITING)


class ConnectionServer(web.Server):
    """The server as its connections see it; `claimsvc.http.runner` extends it."""

    is_stopping = False
    """Whether every response closes its connection."""
    unfinished: UnfinishedRequests
    """What all connections keep of requests that have not arrived completely."""


class ArrivingRequests(web.RequestHandler):
    """The arrival of requests on one connection; `HttpConnection` begins them.

    Args:
        manager: the server that the connection belongs to.
        head_timeout_seconds: how long a request's headers may take to arrive.
        kwargs: for aiohttp's handler.
    """

    __slots__ = (
        "_body",
        "_counted_bytes",
        "_head_timeout_seconds",
        "_head_timer",
        "_ignores_upgrade",
        "_remote",
        "_rest",
        "_server",
        "_started_head",
        "_unparsed_bytes",
    )

    def __init__(self, manager: ConnectionServer, head_timeout_seconds: float, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._server = manager
        self._remote: str | None = None
        # The body of the last request that was read.
        self._body: StreamReader = EMPTY_PAYLOAD
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
        self._head_timer = self._loop.call_later(self._head_timeout_seconds, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._count(0)
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.feed_eof()

    def _begin_next(self) -> None:
        """Begin the next request, if none is under way."""
        raise NotImplementedError

    def _awaits_head(self) -> bool:
        """Whether arriving data belongs to a head, and not to the body of a request that was begun."""
        raise NotImplementedError

    def _waiting(self) -> int:
        """How many of `_messages`, from the end, wait for another request, and are not about to be begun."""
        raise NotImplementedError

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
        is_of_begun = is_of_body and not self._messages
        heads = self._request_count
        # Hide the waiter from aiohttp, so that its task is woken only for requests that need it; see `_begin_next`.
        waiter, self._waiter = self._waiter, None
        super().data_received(data)
        if is_of_begun:
            self._free_slot(heads)
        self._waiter = waiter
        if self._request_count != heads:
            self._started_head = False
            if self._head_timer is not None:
                self._stop_head_timer()
            last, self._body = self._messages[-1]
            if len(self._messages) > 1 or isinstance(last, _ErrInfo) or last.version not in _VERSIONS:
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
        has_begun = self._request_count != heads
        is_complete = (has_begun or is_of_body or not data) and self._body.is_eof()
        if not is_complete or self._counted_bytes or (self._messages and self._waiting()):
            is_stuck = is_of_body and not (has_begun or self._body.is_eof() or self._body.total_bytes != body_bytes)
            self._count_unfinished(data, has_begun=has_begun, is_of_body=is_of_body, is_stuck=is_stuck)

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

    def _free_slot(self, heads: int) -> None:
        """Let the parser go on, if the body of a request that was begun before is complete now.

        aiohttp's parser counts requests whose end it has seen until they are begun. One that was begun before its end
        would be counted for ever, and the parser would soon stop after each request.

        Args:
            heads: `_request_count` before the last input.
        """
        if not self._body.is_eof() or self._parser is None:
            return
        self._parser.message_consumed()
        if self._request_count != heads and not isinstance(self._messages[-1][0], _ErrInfo):
            super().data_received(b"")  # the parser may have stopped one request too early

    def _count_unfinished(self, data: bytes, *, has_begun: bool, is_of_body: bool, is_stuck: bool) -> None:
        """Count what is kept of requests that have not arrived completely, or that wait for another one.

        Args:
            data: what has arrived.
            has_begun: whether a head was complete with it.
            is_of_body: whether it began within a body.
            is_stuck: whether that body has neither grown with it nor ended: it is of trailers, or of a chunk's head.
        """
        # With so many complete requests waiting the parser stops, and keeps what follows.
        is_full = len(self._messages) >= self._max_msg_queue_size and self._body.is_eof()
        if is_full or is_stuck or (data and not has_begun and not is_of_body):
            self._unparsed_bytes += len(data)
        else:
            self._unparsed_bytes = 0
        if self._unparsed_bytes > MAX_HEAD_BYTES and not (is_full or self._buffer_paused):
            self._refuse_last(RefusedError(HEADERS_TOO_LARGE, close=True))
            return
        self._count_kept()

    def _count_kept(self) -> None:
        """Count what this connection keeps now."""
        kept_bytes = self._unparsed_bytes
        if self._rest is None and not self._body.is_eof():
            kept_bytes += min(self._body.total_bytes, MAX_BODY_BUFFER_BYTES)
        for place in range(-self._waiting(), 0):
            message, body = self._messages[place]
            kept_bytes += _head_bytes(message)
            if body.is_eof():
                kept_bytes += min(body.total_bytes, MAX_BODY_BUFFER_BYTES)
        self._count(kept_bytes)

    def _count(self, kept_bytes: int) -> None:
        if kept_bytes != self._counted_bytes:
            self._counted_bytes = kept_bytes
            self._server.unfinished.keeps(self, self._remote, kept_bytes)

    def refuse_unfinished(self) -> None:
        """Refuse what has not arrived completely or waits, and free what is kept of it; see `UnfinishedRequests`."""
        self._counted_bytes = 0
        for _ in range(self._waiting()):
            _, body = self._messages.pop()
            if body is self._body:
                self._body = EMPTY_PAYLOAD
                if self._reading_paused:
                    self.resume_reading(resume_parser=False)
        self._refuse_last(
            RefusedError(REQUEST_TIMEOUT, "Too many requests are arriving in parts; send it whole.", close=True)
        )

    def _refuse_last(self, refusal: RefusedError) -> None:
        """Refuse what is arriving: a head, or the rest of the last request's body."""
        if self._body.is_eof():
            self._refuse_head(refusal)
        elif self._current_request is None and not self._messages:
            self.force_close()  # its request is answered, and the rest of the body is being discarded
        else:
            # Whoever reads the body raises it. What still arrives is read and discarded by `finish_response`.
            self._body.set_exception(refusal)
            self._rest = self._body
            self._forget_unparsed()

    def _forget_unparsed(self) -> None:
        """Free what the parser keeps; nothing more is parsed."""
        self._parser = None
        self._unparsed_bytes = 0
        self._count_kept()

    def _refuse_head(self, refusal: RefusedError) -> None:
        """Answer the head that is arriving with a refusal, as the connection's last request."""
        self._stop_head_timer()
        self._rest = StreamReader(self, READ_BUFFER_BYTES, loop=self._loop)
        self._forget_unparsed()
        self._messages.append((_ErrInfo(refusal.problem.status, refusal, ""), self._rest))
        self._begin_next()

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


def _head_bytes(message: RawRequestMessage | _ErrInfo) -> int:
    if isinstance(message, _ErrInfo):
        return 0
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)


def refusal_of(error: BaseException) -> RefusedError:
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
