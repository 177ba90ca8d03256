"""The cheapest answer that this machine can give: the load generator's own ceiling is measured against it."""

import asyncio
import socket
from typing import cast

_BODY = b'{"id":"' + b"0" * 200 + b'"}'
_ANSWER = (b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)) + _BODY


class Responder(asyncio.Protocol):
    """Answers whatever arrives, once for each piece: the load generator sends a request in one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


async def serve_responder(sock: socket.socket) -> None:
    """Answer on a listening socket, for ever."""
    server = await asyncio.get_running_loop().create_server(Responder, sock=sock, backlog=4096)
    await server.serve_forever()
