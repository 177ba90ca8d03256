"""Bodies that are processed while they arrive, and so may be larger than memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.framework.bodies import BROKEN_BODY
from claimsvc.http.framework.content_type import content_type_of
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server.aiohttp_internals import writer_of
from claimsvc.http.server.problems import (
    BODY_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
    RefusedError,
)

# The time limit of a body that arrives steadily.
_MAX_SECONDS = 300.0
# A piece is processed without interruption, so its size bounds how long other requests wait.
_MAX_CHUNK_BYTES = 16_384
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Streamed:
    """The bodies that a route accepts.

    Args:
        content: for each content type its media type object of OpenAPI: `schema` and `example`.
        max_bytes: how large a body may be.
    """

    content: Mapping[str, Mapping[str, Any]]
    max_bytes: int


class StreamingBody:
    """A body that is arriving, and its content type.

    Args:
        request: the request; `pieces` consumes its body.
        streamed: the bodies that the route accepts.

    Raises:
        RefusedError: the route does not accept the content type, charset or encoding.
    """

    def __init__(self, request: web.Request, streamed: Streamed) -> None:
        kinds = ", ".join(f"`{kind}`" for kind in streamed.content)
        self.content_type, charset = content_type_of(request)
        if self.content_type not in streamed.content:
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, f"`Content-Type` must be one of {kinds}.", close=True)
        if charset is not None and charset not in {"utf-8", "utf8", "us-ascii"}:
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "The charset of the body must be UTF-8.", close=True)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "The body of this operation must not be compressed.", close=True)
        self._request = request
        self._max_bytes = streamed.max_bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece.

        Raises:
            RefusedError: the body is too large or incomplete, or does not arrive in time.
        """
        if (self._request.content_length or 0) > self._max_bytes:
            raise self._too_large()
        clock = asyncio.get_running_loop().time
        ends_at = clock() + _MAX_SECONDS
        timeout_seconds = self._request.app[SERVICES].body_timeout_seconds
        seen = 0
        while True:
            try:
                async with asyncio.timeout_at(min(clock() + timeout_seconds, ends_at)):
                    piece = await self._request.content.read(_MAX_CHUNK_BYTES)
            except TimeoutError:
                raise RefusedError(REQUEST_TIMEOUT, close=True) from None
            except (web.RequestPayloadError, ConnectionError):
                raise RefusedError(BAD_REQUEST, BROKEN_BODY, close=True) from None
            if not piece:
                return
            seen += len(piece)
            if seen > self._max_bytes:
                raise self._too_large()
            yield piece
            # Reading buffered data does not wait, so let other requests run.
            await asyncio.sleep(0)

    def _too_large(self) -> RefusedError:
        return RefusedError(BODY_TOO_LARGE, f"The body is larger than {self._max_bytes} bytes.", close=True)


def expect_handler(max_bytes: int) -> Callable[[web.Request], Awaitable[None]]:
    """The handler of `Expect: 100-continue` of a route: a body that is too large is refused before the client sends it.

    Args:
        max_bytes: how large a body may be.
    """

    async def expect(request: web.Request) -> None:
        if (request.content_length or 0) > max_bytes:
            raise RefusedError(BODY_TOO_LARGE, f"The body is larger than {max_bytes} bytes.", close=True)
        writer = writer_of(request)
        await writer.write(_CONTINUE)
        # The interim response does not count as the start of the response.
        writer.output_size = 0

    return expect
