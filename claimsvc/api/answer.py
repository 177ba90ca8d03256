"""A response that is written in one piece, its head put together from parts that are known before any request.

aiohttp builds a head header by header for each response. For the short answers of the API that costs more than the
claim itself does, so they bring their own; whatever is not the usual case is left to aiohttp.
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


class Answer(web.StreamResponse):
    """A response with a body of bytes. Headers that are set on it are added to those of its `Head`."""

    def __init__(self, head: Head, body: bytes) -> None:
        super().__init__(status=head.status)
        self._head = head
        self._content = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await super().prepare(request)
        writer = request._payload_writer
        if (
            self._keep_alive is None
            and request.keep_alive
            and request.version == HttpVersion11
            and request.method != hdrs.METH_HEAD
            and len(self._content) <= _LONGEST_IN_ONE_PIECE
            and type(writer) is StreamWriter
        ):
            self._write_at_once(writer)
            return None
        for name, value in self._head.headers.items():
            self._headers.setdefault(name, value)
        self._headers[hdrs.CONTENT_LENGTH] = str(len(self._content))
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._eof_sent:
            await super().write_eof(b"" if self._must_be_empty_body else self._content)

    def _write_at_once(self, writer: StreamWriter) -> None:
        added = "".join([f"{name}: {value}\r\n" for name, value in self._headers.items()])
        length, date = len(self._content), rfc822_formatted_time()
        head = f"{self._head.start}{added}Content-Length: {length}\r\nDate: {date}\r\n\r\n"
        # Raises, as it does for aiohttp, if the client is gone.
        writer._write(head.encode("ascii") + self._content)
        self._keep_alive = True
        self._eof_sent = True
