"""Replies, and how they are written in one piece.

aiohttp builds each response's head header by header, which for the API's short responses costs more than the claim. So
their heads are assembled from parts that are prepared at import. aiohttp writes all unusual responses.
"""

from collections.abc import Mapping

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import StreamWriter

from claimsvc.http.server.aiohttp_internals import write_bytes, writer_of

# Longer responses may exceed the socket's buffer, and then writing must wait for the client.
_MAX_SINGLE_WRITE_BYTES = 16_384


class Head:
    """The constant part of a response's head.

    Args:
        status: the HTTP status.
        headers: the headers that do not depend on the request; without `Content-Length`, `Date` and `Connection`.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        reason = web.Response(status=status).reason
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        self.start = "\r\n".join(lines) + "\r\n"


class Reply:
    """A response of the API, independent of aiohttp.

    Args:
        head: the constant part of the head.
        body: the encoded body.

    Attributes:
        headers: further headers of this reply.
        closes: whether the connection is closed after it.
    """

    __slots__ = ("body", "closes", "head", "headers")

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.body = body
        self.headers: dict[str, str] = {}
        self.closes = False

    def as_bytes(self) -> bytes:
        """The complete message, for HTTP/1.1; `headers` must contain `Connection` if the connection is to be closed."""
        added = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        length, date = len(self.body), rfc822_formatted_time()
        head = f"{self.head.start}{added}Content-Length: {length}\r\nDate: {date}\r\n\r\n"
        return head.encode("ascii") + self.body


class Response(web.StreamResponse):
    """A reply as a response of aiohttp."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.head.status)
        self._reply = reply
        if reply.closes:
            self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await super().prepare(request)
        writer, reply = writer_of(request), self._reply
        reply.headers.update(self._headers)
        if (
            self._keep_alive is None
            and request.keep_alive
            and request.version == HttpVersion11
            and request.method != hdrs.METH_HEAD
            and len(reply.body) <= _MAX_SINGLE_WRITE_BYTES
            and type(writer) is StreamWriter
        ):
            write_bytes(writer, reply.as_bytes())
            self._keep_alive = True
            self._eof_sent = True
            return None
        self._headers.update({**reply.head.headers, **reply.headers})
        self._headers[hdrs.CONTENT_LENGTH] = str(len(reply.body))
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._eof_sent:
            await super().write_eof(b"" if self._must_be_empty_body else self._reply.body)
