"""What becomes of connections when the service is about to stop."""

import asyncio
import fcntl
import sys
import termios
from collections.abc import AsyncIterator

import pytest

from claimsvc.application.readiness import Readiness
from claimsvc.http.app import create_app
from tests.http.memory_services import Observations, memory_services
from tests.support.memory_store import MemoryStore
from tests.support.serving import Running, running
from tests.support.waiting import until

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
READYZ = LIVEZ.replace(b"livez", b"readyz")


class Check:
    """What an answer of `/readyz` waits for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self) -> None:
        self.asked.set()
        await self.may_answer.wait()


@pytest.fixture
def check() -> Check:
    return Check()


@pytest.fixture
async def server(check: Check) -> AsyncIterator[Running]:
    app = create_app(memory_services(MemoryStore(), Observations(), readiness=Readiness({"slow": check})))
    async with running(app, header_timeout_seconds=5) as started:
        yield started


def unread_bytes(server: Running) -> int:
    """How many bytes have arrived for its only connection that it has not read."""
    [connection] = server.connections
    assert connection.transport is not None
    count = bytearray(4)
    fcntl.ioctl(connection.transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


async def is_left_unread(reader: asyncio.StreamReader) -> bool:
    """Whether a reset says that a request was not read; an orderly end, or silence, would leave the client in doubt."""
    try:
        async with asyncio.timeout(20):
            while await reader.read(4096):
                pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


async def test_a_request_on_an_idle_connection_that_is_closed_is_left_unread(server: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(LIVEZ)
    await reader.readuntil(b"\r\n\r\n")
    assert server.runner.server is not None
    server.runner.server.pre_shutdown()
    writer.write(LIVEZ)
    assert await is_left_unread(reader)
    writer.close()


async def test_a_request_after_the_last_that_is_answered_is_left_unread(server: Running, check: Check) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(READYZ)
    await check.asked.wait()
    assert server.runner.server is not None
    server.runner.server.pre_shutdown()
    writer.write(LIVEZ)
    await until(lambda: unread_bytes(server) == len(LIVEZ), "the second request has arrived")
    stopping = asyncio.create_task(server.runner.server.shutdown(5))
    await asyncio.sleep(0)
    check.may_answer.set()
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    assert await is_left_unread(reader)
    writer.close()
    await stopping
