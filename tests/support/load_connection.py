"""HTTP/1.1 on a bare socket: one request at a time, and a precise word for how a connection ended.

It costs a fraction of what a client library does, and tells what a library hides: whether the other side had read a
request before it closed the connection.
"""

import asyncio
import errno
import re
import socket
from dataclasses import dataclass
from typing import cast

_HEADERS_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_NO_CONTENT = b"204"
# Loopback tells of a reset within microseconds; a busy machine may need longer to let us look.
_RESET_SECONDS = 0.05
_TCP_CLOSE = 7  # of Linux' tcp_states.h: what a connection is in after a reset


class NoAnswerError(Exception):
    """There was no answer. `kind` says what was seen instead; see `history.Invocation.problem`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    def has_header(self, name: bytes) -> bool:
        return b"\r\n" + name.lower() + b":" in self.head.lower()

    @property
    def closes(self) -> bool:
        return b"\r\nconnection: close" in self.head.lower()


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[Answer] | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        end = data.find(_HEADERS_END)
        if end < 0:
            self._received = data
            return
        length = _LENGTH.search(data, 0, end)
        body_at = end + len(_HEADERS_END)
        body = int(length[1]) if length is not None else 0
        if length is None and data[9:12] != _NO_CONTENT:
            self._fail("garbled")
        elif len(data) < body_at + body:
            self._received = data
        else:
            self._received = b""
            answer, self._answer = self._answer, None
            if answer is not None and not answer.done():
                answer.set_result(Answer(int(data[9:12]), data[: end + 2], data[body_at:]))

    def eof_received(self) -> bool:
        self.is_open = False
        if self._answer is None:
            return False
        # The other side has closed. If it had not read our request, a reset follows at once.
        asyncio.get_running_loop().call_later(_RESET_SECONDS, self._closed)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._fail("closed" if error is None else "reset")

    def abort(self) -> None:
        """End it, whatever is under way."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def send(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a request; what is returned fails with `NoAnswerError`."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or not self.is_open:
            self._fail("closed-unread")
        else:
            self._transport.write(request)
        return answer

    async def ask(self, request: bytes, timeout_seconds: float, *, or_else: str = "timeout") -> Answer:
        """Send a request and wait for its answer; a connection without an answer in time is ended.

        Args:
            request: the whole of it.
            timeout_seconds: how long to wait.
            or_else: the error's kind if that was not long enough.

        Raises:
            NoAnswerError: there was none.
        """
        late = asyncio.get_running_loop().call_later(timeout_seconds, self._late, or_else)
        try:
            return await self.send(request)
        finally:
            late.cancel()

    def _late(self, kind: str) -> None:
        self._fail(kind)
        self.abort()

    def _closed(self) -> None:
        if self._answer is not None and self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            self._fail("closed-unread" if sock is None or _was_reset(sock) else "closed")
        self.abort()

    def _fail(self, kind: str) -> None:
        answer, self._answer = self._answer, None
        self._received = b""
        if answer is not None and not answer.done():
            answer.set_exception(NoAnswerError(kind))


def _was_reset(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except OSError as error:
        return error.errno in (errno.ECONNRESET, errno.EBADF, errno.ENOTCONN)


async def connect(port: int, timeout_seconds: float) -> Wire:
    """A connection to a port of this machine.

    Raises:
        NoAnswerError: of kind `refused`.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", port)
            return wire
    except (OSError, TimeoutError) as error:
        raise NoAnswerError("refused") from error


def claim_request(coupon: str, user: str) -> bytes:
    body = f'{{"coupon_name":"{coupon}","user_id":"{user}"}}'
    return (
        "POST /api/coupons/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def read_request(coupon: str) -> bytes:
    return f"GET /api/coupons/{coupon} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def poll_request(ticket: str) -> bytes:
    return f"GET /api/tickets/{ticket} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def leave_request(ticket: str) -> bytes:
    return f"DELETE /api/tickets/{ticket} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
