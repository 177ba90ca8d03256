"""What the client's calls share: whose token they send, their keys and ids, and lists that are read page by page."""

import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote, urlencode

from claimsvc.client.errors import ProblemError
from claimsvc.client.outcomes import Claim, UnknownCoupon
from claimsvc.client.reading import page_of
from claimsvc.client.refusals import OF_A_COUPON, refusal
from claimsvc.client.retries import Retries
from claimsvc.client.sending import ClientResponse, Request, Sender, Streamed

_NOT_IN_A_KEY = '"\\'
_LONGEST_KEY = 255


class Requests:
    """Requests in the name of one token.

    Args:
        sender: sends them.
        token: sent as `Authorization: Bearer`; None to send none.
    """

    def __init__(self, sender: Sender, token: str | None) -> None:
        self._sender = sender
        self._token = token

    @property
    def retries(self) -> Retries:
        """The pauses between attempts, and their number."""
        return self._sender.retries

    @property
    def has_room_for_stream(self) -> bool:
        """Whether fewer than half of the connections are streams."""
        return self._sender.has_room_for_stream

    async def close(self) -> None:
        """Close all connections."""
        await self._sender.close()

    def with_token(self, token: str | None) -> "Requests":
        """Return requests with another token, on the same connections."""
        return Requests(self._sender, token)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        key: str | None,
        request_id: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> ClientResponse:
        """Send a POST with an Idempotency-Key; see `Sender.send`.

        Raises:
            ValueError: the key is invalid.
        """
        return await self.send("POST", path, request_id, key=_checked(key), body=body, headers=headers)

    async def send(
        self,
        method: str,
        path: str,
        request_id: str | None = None,
        *,
        key: str | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ClientResponse:
        """Send a request, and retry it until its answer is definite; see `Sender.send`."""
        # The same id for all attempts, so that they can be found together in the service's log.
        request_id = request_id or str(uuid.uuid4())
        return await self._sender.send(Request(method, path, request_id, self._token, key, body, headers or {}))

    def stream(self, path: str, last_event_id: str) -> AbstractAsyncContextManager[Streamed]:
        """Open a stream of server-sent events, in one attempt; see `Sender.stream`.

        Args:
            path: the path, quoted.
            last_event_id: the id of the last event of a stream that was interrupted; empty for none.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        return self._sender.stream(Request("GET", path, str(uuid.uuid4()), self._token, more=headers))

    async def pages(
        self, path: str, query: Mapping[str, int | str], request_id: str | None
    ) -> AsyncGenerator[list[Claim] | UnknownCoupon, None]:
        """Read the pages of a list of claims; `UnknownCoupon` ends it."""
        cursor: str | None = None
        while True:
            asked = {**query, "cursor": cursor} if cursor is not None else query
            answer = await self.send("GET", f"{path}?{urlencode(asked)}", request_id)
            if answer.status != 200:
                refused = refusal(answer, OF_A_COUPON)
                if not isinstance(refused, UnknownCoupon):
                    raise ProblemError(refused.problem)
                yield refused
                return
            page, next_cursor = answer.read(page_of)
            yield page
            if next_cursor is None:
                return
            if next_cursor == cursor:
                raise answer.unexpected("the cursor of the next page is that of this page")
            cursor = next_cursor


def quoted(part: str) -> str:
    """A part of a path."""
    return quote(part, safe="")


def _checked(key: str | None) -> str:
    """Return the key if it is a string of RFC 9651 that needs no escaping; a new key for None.

    Raises:
        ValueError: the key is invalid.
    """
    if key is None:
        return str(uuid.uuid4())
    if not 1 <= len(key) <= _LONGEST_KEY or not all("!" <= each <= "~" and each not in _NOT_IN_A_KEY for each in key):
        raise ValueError('an Idempotency-Key is 1 to 255 visible ASCII characters other than " and \\')
    return key
