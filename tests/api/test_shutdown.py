"""What becomes of connections when the service is about to stop."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from claimsvc.api import create_app, create_runner
from tests.api.memory import MemoryStore, Observations, memory_services

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
READYZ = LIVEZ.replace(b"livez", b"readyz")


@pytest.fixture
def checked() -> asyncio.Event:
    """What an answer of `/readyz` waits for."""
    return asyncio.Event()


@pytest.fixture
async def runner(checked: asyncio.Event) -> AsyncIterator[web.AppRunner]:
    async def check() -> None:
        await checked.wait()

    app = create_app(memory_services(MemoryStore(), Observations(), health_checks={"slow": check}))
    runner = create_runner(app, header_timeout_seconds=5, shutdown_grace_seconds=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


async def is_left_unread(reader: asyncio.StreamReader) -> bool:
    """Whether a reset says that a request was not read; an orderly end, or silence, would leave the client in doubt."""
    try:
        async with asyncio.timeout(5):
            while await reader.read(4096):
                pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


async def test_a_request_on_an_idle_connection_that_is_closed_is_left_unread(runner: web.AppRunner) -> None:
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(LIVEZ)
    await reader.readuntil(b"\r\n\r\n")
    assert runner.server is not None
    runner.server.pre_shutdown()
    writer.write(LIVEZ)
    assert await is_left_unread(reader)
    writer.close()


async def test_a_request_after_the_last_that_is_answered_is_left_unread(
    runner: web.AppRunner, checked: asyncio.Event
) -> None:
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(READYZ)
    await asyncio.sleep(0.1)
    assert runner.server is not None
    runner.server.pre_shutdown()
    writer.write(LIVEZ)
    stopping = asyncio.create_task(runner.server.shutdown(5))
    await asyncio.sleep(0.1)
    checked.set()
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    assert await is_left_unread(reader)
    writer.close()
    await stopping
