"""The server of the application: limits, connections, and the drain notice before shutdown."""

import asyncio

from aiohttp import web

from claimsvc.http.framework.routing import with_static_lookup
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.resources.claims.fast_claims import fast_claims
from claimsvc.http.resources.operations.routes import READINESS
from claimsvc.http.resources.tickets.watching import WATCHERS
from claimsvc.http.server.access_log import AccessLog
from claimsvc.http.server.addresses import naming_its_client
from claimsvc.http.server.arrival import READ_BUFFER_BYTES, ConnectionServer
from claimsvc.http.server.connection import HttpConnection
from claimsvc.http.server.cors import answering_preflights
from claimsvc.http.server.fair_queue import FairQueue
from claimsvc.http.server.fast_path import FastPath
from claimsvc.http.server.hosts import guarded
from claimsvc.http.server.request_boundary import RequestBoundary
from claimsvc.http.server.under_way import UnderWay
from claimsvc.http.server.unfinished import UnfinishedRequests
from claimsvc.http.server.wire import MAX_HEADER_BYTES, MAX_HEADERS, MAX_LINE_BYTES
from claimsvc.http.traced import TracedAccessLog, TracedFastPath, TracedRequestBoundary

# Common proxies close idle connections after 60 s. They must close first: a server that does races with a request.
KEEPALIVE_SECONDS = 75.0
# Of requests that have not arrived completely, over all connections.
UNFINISHED_REQUESTS_BYTES = 32 * 1024 * 1024
# How long the rest of a refused body is read and discarded, so that the client can read the refusal.
_LINGER_SECONDS = 2.0
# How often connections are checked for clients that do not read; the precision of the write timeout.
_STALL_CHECK_SECONDS = 0.5


class _Server(ConnectionServer):
    def __init__(
        self,
        server: web.Server,
        boundary: RequestBoundary,
        fast_path: FastPath,
        head_timeout_seconds: float,
        write_timeout_seconds: float,
        unfinished: UnfinishedRequests,
        under_way: UnderWay | None,
    ) -> None:
        super().__init__(boundary, request_factory=server.request_factory, **server._kwargs)  # type: ignore[arg-type]
        self.unfinished = unfinished
        self._under_way = under_way
        self._boundary = boundary
        self._fast_path = fast_path
        self._head_timeout_seconds = head_timeout_seconds
        self._write_timeout_seconds = write_timeout_seconds
        self._stall_check = self._loop.call_later(_STALL_CHECK_SECONDS, self._abort_stalled)

    def __call__(self) -> web.RequestHandler:
        return HttpConnection(
            self,
            self._boundary,
            self._fast_path,
            self._head_timeout_seconds,
            self._under_way,
            loop=self._loop,
            **self._kwargs,
        )

    def _abort_stalled(self) -> None:
        # One timer serves all connections, because a timer per response would cost more than the response.
        now = self._loop.time()
        for connection in self._connections:
            if isinstance(connection, HttpConnection):
                connection.abort_if_stalled(now, self._write_timeout_seconds)
        self._stall_check = self._loop.call_later(_STALL_CHECK_SECONDS, self._abort_stalled)

    async def give_drain_notice(self, within_seconds: float) -> None:
        self.is_stopping = True
        serving = [task for each in self._connections if (task := each._task_handler) is not None]
        if serving:
            await asyncio.wait(serving, timeout=within_seconds)

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        self._stall_check.cancel()


class Runner(web.AppRunner):
    """aiohttp's runner, with `RequestBoundary` around the application and `HttpConnection` as the protocol."""

    __slots__ = ("_header_timeout_seconds", "_unfinished", "_write_timeout_seconds")

    def __init__(
        self,
        app: web.Application,
        *,
        header_timeout_seconds: float,
        write_timeout_seconds: float,
        shutdown_grace_seconds: float,
        keepalive_seconds: float,
        unfinished: UnfinishedRequests,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=shutdown_grace_seconds,
            keepalive_timeout=keepalive_seconds,
            lingering_time=_LINGER_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            read_bufsize=READ_BUFFER_BYTES,
            # `framework.bodies` inflates, and limits the inflated size.
            auto_decompress=False,
        )
        self._header_timeout_seconds = header_timeout_seconds
        self._write_timeout_seconds = write_timeout_seconds
        self._unfinished = unfinished

    async def give_drain_notice(self, within_seconds: float) -> None:
        """Ask the clients of open connections to close them. Call this after the listeners are closed.

        `/readyz` answers 503 from now on, and every response has `Connection: close`. Idle connections stay open for
        a while, because closing one could drop a request that is already on its way.

        Args:
            within_seconds: how long to wait for the connections to close.
        """
        self.app[READINESS].stop()
        self.app[WATCHERS].stop()
        if live := self.app[SERVICES].live:
            await live.dismiss_viewers()
        if isinstance(self.server, _Server):
            await self.server.give_drain_notice(within_seconds)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        services = self.app[SERVICES]
        handler = with_static_lookup(self.app, server.request_handler)
        if services.hosts is not None:
            handler = guarded(handler, services.hosts)
        if services.cors is not None:
            handler = answering_preflights(handler, services.cors)
        handler = naming_its_client(handler, services.trusted_proxies)
        queue, tracer = FairQueue(), services.tracer
        route = fast_claims(self.app)
        access_log: AccessLog
        if tracer is None:
            access_log = AccessLog(services.observer, services.log_requests_per_second)
            boundary, fast_path = RequestBoundary(handler, access_log, queue), FastPath(route, access_log, queue)
        else:
            access_log = TracedAccessLog(services.observer, services.log_requests_per_second, tracer)
            boundary = TracedRequestBoundary(handler, access_log, queue, tracer)
            fast_path = TracedFastPath(route, access_log, queue, tracer)
        boundary.cors = fast_path.cors = services.cors
        fast_path.hosts = services.hosts
        timeouts = self._header_timeout_seconds, self._write_timeout_seconds
        return _Server(server, boundary, fast_path, *timeouts, self._unfinished, services.under_way)
