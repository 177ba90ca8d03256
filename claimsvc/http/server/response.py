"""What a request is answered: a reply, and how it is written in one piece.

aiohttp builds a head header by header for each response. For the short answers of the API that costs more than the
claim itself does, so their heads are put together from parts that are known before any request. Whatever is not the
usual case is left to aiohttp.
"""

from collections.abc import Mapping

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import StreamWriter

# A longer one may not fit into the socket's buffer, and then its writing has to wait for the client.
_LONGEST_IN_ONE_PIECE = 16_384


class Head:
    """The part of a head that every answer of a kind has in common.

    Args:
        status: the HTTP status.
        headers: what no request changes; neither the length, nor the date, nor `Connection`.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        reason = web.Response(status=status).reason
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        self.start = "\r\n".join(lines) + "\r\n"


class Reply:
    """An answer of the API.

    Args:
        head: what it has in common with others of its kind.
        body: its bytes.

    `headers` are those of this reply alone; `closes` ends the connection after it.
    """

    __slots__ = ("body", "closes", "head", "headers")

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.body = body
        self.headers: dict[str, str] = {}
        self.closes = False

    def in_one_piece(self) -> bytes:
        """The whole message, for HTTP/1.1 and a connection that is kept."""
        added = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        length, date = len(self.body), rfc822_formatted_time()
        head = f"{self.head.start}{added}Content-Length: {length}\r\nDate: {date}\r\n\r\n"
        return head.encode("ascii") + self.body


class Response(web.StreamResponse):
    """A reply as aiohttp takes it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.head.status)
        self._reply = reply
        if reply.closes:
            self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await super().prepare(request)
        writer, reply = request._payload_writer, self._reply
        reply.headers.update(self._headers)
        if (
            self._keep_alive is None
            and request.keep_alive
            and request.version == HttpVersion11
            and request.method != hdrs.METH_HEAD
            and len(reply.body) <= _LONGEST_IN_ONE_PIECE
            and type(writer) is StreamWriter
        ):
            # Raises, as it does for aiohttp, if the client is gone.
            writer._write(reply.in_one_piece())
            self._keep_alive = True
            self._eof_sent = True
            return None
        self._headers.update({**reply.head.headers, **reply.headers})
        self._headers[hdrs.CONTENT_LENGTH] = str(len(reply.body))
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._eof_sent:
            await super().write_eof(b"" if self._must_be_empty_body else self._reply.body)
