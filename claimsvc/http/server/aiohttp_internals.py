"""The private names of aiohttp's requests and writers that the service uses, each in one function.

`connection.py` and `runner.py` override private names of connections and runners, and are the only files with those.
aiohttp's minor version has an upper pin; `tests/test_private_names.py` fails when a name goes.
"""

from aiohttp import hdrs, web, web_protocol
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.web_urldispatcher import UrlMappingMatchInfo

_KNOWN_UPGRADES = frozenset({"websocket"})


def limit_waiting_requests(most: int) -> None:
    """Limit how many complete requests a connection of this process reads ahead of those that it has begun.

    aiohttp has no option for it: its connections and their parsers are made with this constant, which is 32.
    """
    web_protocol.MAX_MSG_QUEUE_SIZE = most


def writer_of(request: web.BaseRequest) -> AbstractStreamWriter:
    """The writer of the request's response."""
    return request._payload_writer


def write_bytes(writer: StreamWriter, data: bytes) -> None:
    """Write a complete response, with its head, to the connection.

    Raises:
        ClientConnectionResetError: the client has disconnected.
    """
    writer._write(data)


def match_of(request: web.Request) -> UrlMappingMatchInfo | None:
    """The route that the request was matched to; None before that, where the public `match_info` fails."""
    return request._match_info


def set_match(request: web.Request, match: UrlMappingMatchInfo) -> None:
    """Match a request to a route."""
    request._match_info = match


def forget_exception(stream: StreamReader) -> None:
    """Let a stream that failed be read on."""
    stream._exception = None


def take_complete(body: StreamReader) -> bytes:
    """Take a body that has arrived completely. Its parser is not asked for more, as `read_nowait` does."""
    if not body.total_bytes:
        return b""  # there may be no buffer
    pieces = body._buffer
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    body._size = 0
    return data


def is_ignored_upgrade(message: RawRequestMessage) -> bool:
    """Whether the request asks for an upgrade that aiohttp ignores, while its parser has stopped for it.

    The parser returns what follows an upgrade that aiohttp knows, and CONNECT; see `_on_headers_complete` there.
    """
    upgrade = message.headers.get(hdrs.UPGRADE, "")
    is_known = upgrade.isascii() and upgrade.lower() in _KNOWN_UPGRADES
    return message.upgrade and not is_known and message.method != hdrs.METH_CONNECT


def target_of(request: web.Request) -> str:
    """The request's target as the client sent it: the path with the query."""
    return request._message.path
