"""Sends a request until it is answered: with retries, within a deadline, on persistent connections."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from claimsvc.client.errors import Problem, UnavailableError, UnexpectedAnswerError
from claimsvc.client.events import Event, EventParser
from claimsvc.client.reading import document_of, problem_of
from claimsvc.client.retries import Retries, advised_seconds, is_transient

_Read = TypeVar("_Read")

# Far more than any answer of the API: a coupon with a thousand claimants has less than 300 kB.
_LONGEST_ANSWER_BYTES = 4 * 1024 * 1024
# If a server or proxy does not accept a connection within this time, a new attempt is better.
_CONNECT_SECONDS = 5.0
_SHOWN_CHARACTERS = 200
# A stream with nothing to tell gives a sign of life every 15 s.
_STREAM_SILENCE_SECONDS = 20.0

LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError, TimeoutError)
"""Errors of lost connections. aiohttp's other errors mean answers that are not HTTP."""
# Subclasses of connection errors for which a retry cannot help.
_HOPELESS = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)

_log = logging.getLogger("claimsvc.client")


@dataclass(frozen=True, slots=True)
class Request:
    """A request, the same in each attempt. `path` is already quoted; a `token` or `key` of None is not sent.

    `more` are further headers.
    """

    method: str
    path: str
    request_id: str
    token: str | None = None
    key: str | None = None
    body: Mapping[str, Any] | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        headers = {"X-Request-ID": self.request_id, "Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.key is not None:
            headers["Idempotency-Key"] = f'"{self.key}"'
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        return {**headers, **self.more}


@dataclass(frozen=True, slots=True)
class ClientResponse:
    """An answer. `problem` is set if it is a problem document; `start` is the beginning of its body."""

    status: int
    document: object
    problem: Problem | None
    request_id: str
    replayed: bool
    retry_after_seconds: float | None
    start: str

    def about(self) -> dict[str, Any]:
        """Return the members of `claimsvc.client.outcomes.Outcome`."""
        return {"request_id": self.request_id, "replayed": self.replayed}

    def read(self, reader: Callable[[object], _Read]) -> _Read:
        """Parse the document with `reader`.

        Raises:
            UnexpectedAnswerError: `reader` raised a ValueError.
        """
        try:
            return reader(self.document)
        except ValueError as error:
            raise self.unexpected(str(error)) from error

    def unexpected(self, reason: str) -> UnexpectedAnswerError:
        """Return the error for an answer that this client does not understand."""
        return UnexpectedAnswerError(
            f"{reason}, in an answer with status {self.status} that begins {self.start!r} (request {self.request_id})"
        )


Events = AsyncGenerator[tuple[Event, ClientResponse], None]
"""Events as they arrive, each with the head of the answer that it is a part of."""
Streamed = Events | ClientResponse


class Sender:
    """Sends requests to one service. Several tasks may use it concurrently.

    Args:
        url: of the service, without a path of the API.
        retries: pauses between attempts, and their number.
        deadline_seconds: longest wait for an answer, over all attempts.
        silence_seconds: how long the service may send nothing before the connection counts as lost.
        connections: most concurrent connections; further requests wait for one.

    Raises:
        ValueError: the URL's scheme is not http or https, or it has more than a host, a port and a path.
    """

    def __init__(
        self, url: str, *, retries: Retries, deadline_seconds: float, silence_seconds: float, connections: int
    ) -> None:
        parsed = URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise ValueError(f"not the URL of a service: {url!r}; it must begin with http:// or https://")
        if parsed.user or parsed.password or parsed.query_string or parsed.fragment:
            raise ValueError("the URL must have no user, query or fragment; pass a token as `token`")
        self._url = str(parsed).rstrip("/")
        self.retries = retries
        self._deadline_seconds = deadline_seconds
        self._timeout, self._stream_timeout = (
            aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_SECONDS, silence_seconds), sock_read=silence)
            for silence in (silence_seconds, max(silence_seconds, _STREAM_SILENCE_SECONDS))
        )
        self._connections = connections
        # Streams last for long, and must leave connections for requests.
        self._streams_left = connections // 2
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def has_room_for_stream(self) -> bool:
        """Whether fewer than half of the connections are streams."""
        return self._streams_left > 0

    async def close(self) -> None:
        """Close the connections. Requests in progress fail."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def send(self, request: Request) -> ClientResponse:
        """Send a request, and retry it until its answer is definite.

        Raises:
            UnavailableError: there was no definite answer before the deadline or the last retry.
            UnexpectedAnswerError: the answer is not HTTP, or too long.
            RuntimeError: the sender is closed.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._deadline_seconds
        for retry in count():
            answer, failure = await self._attempt(request, deadline)
            if answer is not None and not is_transient(answer.status, _slug(answer.problem)):
                return answer
            advised = answer.retry_after_seconds if answer is not None else None
            pause = self.retries.pause_seconds(retry, advised)
            reason = _reason(answer, failure)
            if (
                isinstance(failure, _HOPELESS)
                or (self.retries.most is not None and retry >= self.retries.most)
                or clock() + pause >= deadline
            ):
                raise UnavailableError(
                    reason,
                    attempts=retry + 1,
                    key=request.key,
                    request_id=request.request_id,
                    problem=answer.problem if answer is not None else None,
                    retry_after_seconds=advised,
                ) from failure
            _log.debug("request %s is sent again in %.3f s: %s", request.request_id, pause, reason)
            await asyncio.sleep(pause)
        raise AssertionError("count() has an end")

    async def _attempt(self, request: Request, deadline: float) -> tuple[ClientResponse | None, Exception | None]:
        """Make one attempt. Returns its answer, or the error that prevented one."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._ask(request), None
        except LOST as failure:
            if self._is_closed:
                raise RuntimeError("the client is closed") from failure
            return None, failure
        except aiohttp.ClientError as failure:
            raise UnexpectedAnswerError(f"{self._url} does not answer in HTTP: {failure}") from failure

    async def _ask(self, request: Request) -> ClientResponse:
        async with self._begun(request, self._timeout) as response:
            return await _whole(request, response)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Streamed]:
        """Open a stream of server-sent events, in one attempt. There must be room for it.

        Returns:
            The events, until the stream ends; or the answer, if it is not such a stream.

        Raises:
            OSError, TimeoutError, aiohttp.ClientError: of the classes in `LOST`: the connection could not be made, was
                lost, or was silent for too long. The events raise the same.
            UnexpectedAnswerError: an event, or the answer, is too long; or the answer is not HTTP.
            RuntimeError: the sender is closed.
        """
        self._streams_left -= 1
        try:
            async with self._begun(request, self._stream_timeout) as response:
                if response.status == 200 and response.content_type == "text/event-stream":
                    yield _events(request, response)
                else:
                    yield await _whole(request, response)
        except LOST:
            raise
        except aiohttp.ClientError as failure:
            raise UnexpectedAnswerError(f"{self._url} does not answer in HTTP: {failure}") from failure
        finally:
            self._streams_left += 1

    def _begun(
        self, request: Request, timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._opened().request(
            request.method,
            # `encoded`, because yarl would otherwise resolve `..` in the path.
            URL(self._url + request.path, encoded=True),
            data=None if request.body is None else json.dumps(request.body).encode(),
            headers=request.headers(),
            # A redirect may turn a POST into a GET, and must not send the token to another host.
            allow_redirects=False,
            timeout=timeout,
        )

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session. It is created here, because that needs a running event loop."""
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _whole(request: Request, response: aiohttp.ClientResponse) -> ClientResponse:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LONGEST_ANSWER_BYTES:
            raise UnexpectedAnswerError(f"the answer is longer than {_LONGEST_ANSWER_BYTES} bytes")
    return _answer(request, response, bytes(body))


def _answer(request: Request, response: aiohttp.ClientResponse, body: bytes) -> ClientResponse:
    document = document_of(body)
    return ClientResponse(
        response.status,
        document,
        problem_of(response.status, document) if response.status >= 400 else None,
        response.headers.get("X-Request-ID", request.request_id),
        response.headers.get("Idempotency-Replayed") == "true",
        advised_seconds(response.headers.get("Retry-After")),
        body[:_SHOWN_CHARACTERS].decode("utf-8", "replace"),
    )


async def _events(request: Request, response: aiohttp.ClientResponse) -> Events:
    answer = _answer(request, response, b"")
    parser = EventParser()
    async for chunk in response.content.iter_any():
        try:
            events = list(parser.feed(chunk))
        except ValueError as error:
            raise answer.unexpected(str(error)) from error
        for event in events:
            yield event, answer


def _slug(problem: Problem | None) -> str | None:
    return problem.slug if problem is not None else None


def _reason(answer: ClientResponse | None, failure: Exception | None) -> str:
    """Describe briefly why an attempt failed."""
    if answer is None:
        return f"no answer: {failure or type(failure).__name__}"
    return f"{answer.status} {answer.problem.slug}" if answer.problem is not None else f"status {answer.status}"
