"""What becomes of connections when the service is about to stop."""

import asyncio

import pytest
from aiohttp import web

from claimsvc.api import create_app, create_runner
from tests.api.memory import MemoryStore, Observations, memory_services


async def test_a_request_that_comes_too_late_is_left_unread_rather_than_dropped() -> None:
    app = create_app(memory_services(MemoryStore(), Observations()))
    runner = create_runner(app, header_timeout_seconds=5, shutdown_grace_seconds=5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        request = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        assert runner.server is not None
        runner.server.pre_shutdown()
        writer.write(request)
        # The reset says so to the client; an orderly end, or silence, would leave it in doubt.
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                while await reader.read(4096):
                    pass
        writer.close()
    finally:
        await runner.cleanup()
