"""The server that runs the application: its limits, its connections, and the notice that they get when it stops."""

import asyncio

from aiohttp import web

from claimsvc.http.framework.routing import shortcut
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.resources.claims.fast import fast_claims
from claimsvc.http.resources.operations.routes import READINESS
from claimsvc.http.server.access_log import AccessLog
from claimsvc.http.server.connection import (
    MAX_HEADER_BYTES,
    MAX_LINE_BYTES,
    READ_BUFFER_BYTES,
    ConnectionServer,
    HttpConnection,
)
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.fast_path import FastPath, NoFastPath
from claimsvc.http.server.request_boundary import RequestBoundary
from claimsvc.http.traced import TracedAccessLog, TracedFastPath, TracedRequestBoundary

_MAX_HEADERS = 100
# Longer than the 60 s after which common proxies drop an idle connection, so that they do it first.
RESTING_SECONDS = 75.0
# How long what is left of a refused body is read and thrown away, so that the client gets to read the refusal.
_LINGERING_SECONDS = 2.0
# How often connections are looked at for clients that do not read: the precision of that limit.
_LOOK_SECONDS = 0.5


class _Server(ConnectionServer):
    def __init__(
        self,
        server: web.Server,
        boundary: RequestBoundary,
        fast_path: FastPath,
        head_timeout_seconds: float,
        write_timeout_seconds: float,
    ) -> None:
        super().__init__(boundary, request_factory=server.request_factory, **server._kwargs)  # type: ignore[arg-type]
        self._boundary = boundary
        self._fast_path = fast_path
        self._head_timeout_seconds = head_timeout_seconds
        self._write_timeout_seconds = write_timeout_seconds
        self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look_for_unread)

    def __call__(self) -> web.RequestHandler:
        return HttpConnection(
            self, self._boundary, self._fast_path, self._head_timeout_seconds, loop=self._loop, **self._kwargs
        )

    def _look_for_unread(self) -> None:
        # One timer for all connections: one for each answer would cost more than the answer.
        now = self._loop.time()
        for connection in self._connections:
            if isinstance(connection, HttpConnection):
                connection.cut_off_if_unread(now, self._write_timeout_seconds)
        self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look_for_unread)

    async def give_drain_notice(self, within_seconds: float) -> None:
        self.is_stopping = True
        serving = [task for each in self._connections if (task := each._task_handler) is not None]
        if serving:
            await asyncio.wait(serving, timeout=within_seconds)

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        self._next_look.cancel()


class Runner(web.AppRunner):
    """aiohttp's runner, with the boundary around the application and our protocol under it."""

    __slots__ = ("_header_timeout_seconds", "_write_timeout_seconds")

    def __init__(
        self,
        app: web.Application,
        *,
        header_timeout_seconds: float,
        write_timeout_seconds: float,
        shutdown_grace_seconds: float,
        resting_seconds: float,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=shutdown_grace_seconds,
            keepalive_timeout=resting_seconds,
            lingering_time=_LINGERING_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
            read_bufsize=READ_BUFFER_BYTES,
            # Inflated by `bodies` instead, within the limit of a body.
            auto_decompress=False,
        )
        self._header_timeout_seconds = header_timeout_seconds
        self._write_timeout_seconds = write_timeout_seconds

    async def give_drain_notice(self, within_seconds: float) -> None:
        """Tell every client that still has a connection not to use it again, with the answer to its next request.

        From now on each answer ends its connection, and `/readyz` is 503. To be called when the listeners are closed.

        Args:
            within_seconds: how long connections at rest are kept open for that request, so that nobody who does not
                know yet is cut off with one on its way.
        """
        self.app[READINESS].stop()
        if live := self.app[SERVICES].live:
            await live.dismiss_viewers()
        if isinstance(self.server, _Server):
            await self.server.give_drain_notice(within_seconds)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        services = self.app[SERVICES]
        handler, queue, tracer = shortcut(self.app, server.request_handler), FairQueue(), services.tracer
        route = fast_claims(services.strategy)
        records: AccessLog
        if tracer is None:
            records = AccessLog(services.observer, services.log_requests_per_second)
            boundary, fast_path = RequestBoundary(handler, records, queue), FastPath(route, records, queue)
        else:
            records = TracedAccessLog(services.observer, services.log_requests_per_second, tracer)
            boundary = TracedRequestBoundary(handler, records, queue, tracer)
            fast_path = TracedFastPath(route, records, queue, tracer)
        if services.tokens is not None or services.quotas is not None:
            fast_path = NoFastPath(route, records, queue)
        return _Server(server, boundary, fast_path, self._header_timeout_seconds, self._write_timeout_seconds)
