"""The server with tracing of claims. Without a tracer the plain parts are used, so that tracing costs nothing."""

import time
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage

from claimsvc.domain import Caller
from claimsvc.http.resources.claims.routes import CLAIM_PATH
from claimsvc.http.server.access_log import AccessLog, PendingClaim
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.fast_path import Ended, FastPath, FastPathClaim, FastRoute
from claimsvc.http.server.observers import HttpObserver, RequestTrace, RequestTracer
from claimsvc.http.server.request_boundary import Handler, RequestBoundary


class TracedAccessLog(AccessLog):
    """An access log that ends each request's trace, and adds its id to the line."""

    def __init__(self, observer: HttpObserver, lines_per_second: int, tracer: RequestTracer) -> None:
        super().__init__(observer, lines_per_second)
        self._tracer = tracer

    def add(
        self, *, status: int, started: float, request_id: str, claim: PendingClaim | None = None, **rest: Any
    ) -> None:
        super().add(status=status, started=started, request_id=request_id, claim=claim, **rest)
        if (trace := self._tracer.current()) is not None:
            trace.answered(status, {"request_id": request_id, **self.details(claim, started, time.monotonic())})

    def details(self, claim: PendingClaim | None, started: float, ended: float) -> dict[str, object]:
        details = super().details(claim, started, ended)
        if (trace := self._tracer.current()) is not None and trace.trace_id is not None:
            details["trace_id"] = trace.trace_id
        return details


class _TracedClaim(FastPathClaim):
    __slots__ = ("trace",)
    trace: RequestTrace

    def reply(self, *, closes: bool) -> tuple[bytes, bool]:
        with self.trace:
            return super().reply(closes=closes)


class TracedFastPath(FastPath):
    """The fast path, with a trace for each claim."""

    claim_class = _TracedClaim

    def __init__(self, route: FastRoute, access_log: AccessLog, queue: FairQueue, tracer: RequestTracer) -> None:
        super().__init__(route, access_log, queue)
        self._tracer = tracer

    def begin(
        self,
        message: RawRequestMessage,
        raw: bytes,
        remote: str | None,
        caller: Caller | Exception,
        ended: Ended,
    ) -> FastPathClaim:
        trace = self._tracer.begin(hdrs.METH_POST, CLAIM_PATH, message.headers)
        with trace:
            claim = super().begin(message, raw, remote, caller, ended)
        assert isinstance(claim, _TracedClaim)  # noqa: S101 - `claim_class` says so; this tells mypy
        claim.trace = trace
        return claim


class TracedRequestBoundary(RequestBoundary):
    """The outermost handler, with a trace for each claim."""

    def __init__(self, handler: Handler, access_log: AccessLog, queue: FairQueue, tracer: RequestTracer) -> None:
        super().__init__(handler, access_log, queue)
        self._tracer = tracer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != hdrs.METH_POST or request.rel_url.raw_path != CLAIM_PATH:
            return await super()._answer(request, handler)
        with self._tracer.begin(hdrs.METH_POST, CLAIM_PATH, request.headers):
            return await super()._answer(request, handler)
