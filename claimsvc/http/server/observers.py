"""Who watches requests: metrics and traces, seen from the server."""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web


class HttpObserver(Protocol):
    """What the HTTP layer tells whoever watches it."""

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered.

        `method` is a known method or `OTHER`, and `route` a template of the route table or `unmatched`, so that both
        stay few whatever is asked for. `seconds` run from the whole head having arrived to the answer being ready.
        """
        ...


class Unobserved:
    """Nobody watches."""

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Forget it."""


class RequestTrace(Protocol):
    """The trace of one request. Whatever is begun while it is entered belongs to it."""

    trace_id: str | None
    """As in `traceparent`; None where there is no trace."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...

    def answered(self, status: int, fields: Mapping[str, object]) -> None:
        """The request was answered; `fields` are those of its log line. Nothing belongs to it any more."""
        ...


class RequestTracer(Protocol):
    """Who traces requests."""

    def begin(self, method: str, route: str, headers: Mapping[str, str]) -> RequestTrace:
        """The trace of a request whose head has just arrived; `headers` say what it continues."""
        ...

    def current(self) -> RequestTrace | None:
        """The trace that is entered here, if any is."""
        ...


REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
