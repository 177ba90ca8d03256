"""Bodies that are taken piece by piece as they arrive, and may be longer than fits into memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server.problems import (
    BODY_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
    RefusedError,
)

# However slowly it comes, as long as something comes.
_MOST_SECONDS = 300.0
# A piece is worked on in one go, and nobody else has a turn meanwhile.
_LARGEST_PIECE_BYTES = 16_384
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a route takes: of each content type its JSON Schema and an example, and the most that a body may have."""

    content: Mapping[str, Mapping[str, Any]]
    most_bytes: int


class StreamingBody:
    """A body that is arriving, and its content type."""

    def __init__(self, request: web.Request, streamed: Streamed) -> None:
        """Raises RefusedError if the route does not take it."""
        kinds = ", ".join(f"`{kind}`" for kind in streamed.content)
        if request.content_type not in streamed.content:
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, f"The body is one of {kinds}.", close=True)
        charset = request.charset
        if charset is not None and charset.lower() not in {"utf-8", "utf8", "us-ascii"}:
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "The body is in UTF-8; no other charset is taken.", close=True)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "This body is not taken compressed.", close=True)
        self.content_type = request.content_type
        self._request = request
        self._most_bytes = streamed.most_bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        """What arrives, in order.

        Raises:
            RefusedError: it is too large, it broke off, or nothing came for as long as a body may take.
        """
        if (self._request.content_length or 0) > self._most_bytes:
            raise self._too_large()
        clock = asyncio.get_running_loop().time
        ends_at = clock() + _MOST_SECONDS
        patience_seconds = self._request.app[SERVICES].body_timeout_seconds
        seen = 0
        while True:
            try:
                async with asyncio.timeout_at(min(clock() + patience_seconds, ends_at)):
                    piece = await self._request.content.read(_LARGEST_PIECE_BYTES)
            except TimeoutError:
                raise RefusedError(REQUEST_TIMEOUT, close=True) from None
            except (web.RequestPayloadError, ConnectionError):
                raise RefusedError(
                    BAD_REQUEST, "The body is not as its headers say, or it broke off.", close=True
                ) from None
            if not piece:
                return
            seen += len(piece)
            if seen > self._most_bytes:
                raise self._too_large()
            yield piece
            # What is there already is read without waiting, and others would not have their turn.
            await asyncio.sleep(0)

    def _too_large(self) -> RefusedError:
        return RefusedError(BODY_TOO_LARGE, f"The body is larger than {self._most_bytes} bytes.", close=True)


def on_expectation(most_bytes: int) -> Callable[[web.Request], Awaitable[None]]:
    """What a route does about `Expect: 100-continue`: a body that is too large is refused before it is sent."""

    async def expect(request: web.Request) -> None:
        if (request.content_length or 0) > most_bytes:
            raise RefusedError(BODY_TOO_LARGE, f"The body is larger than {most_bytes} bytes.", close=True)
        writer = request._payload_writer
        await writer.write(_CONTINUE)
        # It is no part of the answer.
        writer.output_size = 0

    return expect
