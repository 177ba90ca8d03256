"""The API behind the real HTTP server: on storage in memory, to see every case; and whole, to see that it is true."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import aiohttp
import pytest
import structlog

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.connect import open_repositories
from claimsvc.domain import PLAIN, StrategyName
from claimsvc.http.app import create_app
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.admin import ADMIN_DIGEST
from tests.support.documented import every_answer_documented
from tests.support.memory_store import MemoryStore
from tests.support.serving import served


@pytest.fixture(autouse=True)
def documented() -> Iterator[None]:
    """Whatever the tests of this folder are answered is in the OpenAPI document."""
    with every_answer_documented():
        yield


@pytest.fixture
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def service(log_lines: list[structlog.typing.EventDict]) -> AsyncIterator[Service]:
    """A service with the coupon `plenty`, of which there is plenty, and `last`, of which there is one unit."""
    store, observations = MemoryStore(), Observations()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    await store.create_coupon("last", 1, StrategyName.REDLOCK)
    async with served(create_app(memory_services(store, observations))) as port, aiohttp.ClientSession() as client:
        yield Service(f"http://127.0.0.1:{port}", port, store, observations, client, log_lines)


@pytest.fixture
def service_url(database_url: str, redis_urls: tuple[str, ...]) -> Iterator[str]:
    """The real service, on PostgreSQL and Redlock, in a thread of its own for clients that block."""
    settings = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))
    running: Future[tuple[str, Callable[[], object]]] = Future()

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with application(settings) as app, served(app, header_timeout_seconds=10) as port:
            running.set_result((f"http://127.0.0.1:{port}", lambda: loop.call_soon_threadsafe(stopped.set)))
            await stopped.wait()

    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(asyncio.run, serve())
        ended.add_done_callback(lambda _: running.cancel())
        url, stop = running.result(30)
        yield url
        stop()
        ended.result(30)


@pytest.fixture
async def demo_url(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[str]:
    """A service as `make run` starts it."""
    settings = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))
    async with open_repositories(settings) as database:
        await database.campaigns.create("demo", 100, StrategyName.REDLOCK, PLAIN, actor="claimsvc")
    async with application(settings) as app, served(app, header_timeout_seconds=10) as port:
        yield f"http://127.0.0.1:{port}"
