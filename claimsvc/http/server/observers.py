"""Protocols through which the server reports requests to metrics and traces."""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web


class HttpObserver(Protocol):
    """Receives each request that was answered."""

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Called when a request was answered.

        Args:
            method: a known method or `OTHER`, so that the number of values is bounded.
            route: a template of the route table or `unmatched`, so that the number of values is bounded.
            status: the response's HTTP status.
            seconds: from the arrival of the complete head until the response was ready.
        """
        ...


class NoObserver:
    """Ignores requests."""

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Do nothing."""


class RequestTrace(Protocol):
    """The trace of one request, a context manager: work that is begun in its context belongs to the trace."""

    trace_id: str | None
    """The id as in `traceparent`; None if the request is not traced."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...

    def answered(self, status: int, fields: Mapping[str, object]) -> None:
        """End the trace, because the request was answered.

        Args:
            status: the response's HTTP status.
            fields: the fields of the request's log line.
        """
        ...


class RequestTracer(Protocol):
    """Begins traces of requests."""

    def begin(self, method: str, route: str, headers: Mapping[str, str]) -> RequestTrace:
        """Begin the trace of a request whose head has just arrived.

        Args:
            method: the HTTP method.
            route: the route's template.
            headers: the request's headers; `traceparent` among them names the trace to continue.
        """
        ...

    def current(self) -> RequestTrace | None:
        """The trace of the current context, if any."""
        ...


REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
