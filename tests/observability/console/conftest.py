"""Real instances whose consoles are watched: over HTTP, and by a real Chromium."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
from playwright.async_api import Browser

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.http.framework.services import SERVICES
from claimsvc.observability.console import Live
from tests.observability.console.watching import Instance
from tests.support.admin import ADMIN_DIGEST
from tests.support.chromium import chromium
from tests.support.serving import served

Open = Callable[[], Awaitable[Instance]]


@pytest.fixture
def settings(database_url: str, redis_urls: tuple[str, ...]) -> Settings:
    return Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,), combining="off")


@pytest.fixture
async def open_instance(settings: Settings) -> AsyncIterator[Open]:
    """Starts instances, all on the same databases."""
    async with AsyncExitStack() as stack:

        async def start() -> Instance:
            app = await stack.enter_async_context(application(settings))
            port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
            live = app[SERVICES].live
            assert isinstance(live, Live)
            client = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30))
            )
            return Instance(f"http://127.0.0.1:{port}", live, client)

        yield start


@pytest.fixture
async def instance(open_instance: Open) -> Instance:
    return await open_instance()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of its own."""
    async with chromium() as browser:
        yield browser
