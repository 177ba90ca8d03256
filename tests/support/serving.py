"""An application behind the real HTTP server, on a free port of this machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from claimsvc.http.app import create_runner


@dataclass(frozen=True, slots=True)
class Running:
    """A server on a free port of this machine."""

    runner: web.AppRunner

    @property
    def port(self) -> int:
        return int(self.runner.addresses[0][1])

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Those that it has, as it knows them."""
        assert self.runner.server is not None
        return self.runner.server.connections


@asynccontextmanager
async def running(app: web.Application, port: int = 0, /, **limits: Any) -> AsyncIterator[Running]:
    """Serve, with the limits of `create_runner`; on leaving, accepted requests have 5 s.

    Args:
        port: of this machine; 0 for a free one.
    """
    runner = create_runner(app, **{"header_timeout_seconds": 0.3, "shutdown_grace_seconds": 5, **limits})
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield Running(runner)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served(app: web.Application, *, header_timeout_seconds: float = 0.3, port: int = 0) -> AsyncIterator[int]:
    """The same for whoever needs only the port."""
    async with running(app, port, header_timeout_seconds=header_timeout_seconds) as server:
        yield server.port
