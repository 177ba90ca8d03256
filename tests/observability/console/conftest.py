"""Real instances whose consoles are watched: over HTTP, and by a real Chromium."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, async_playwright

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.http.framework.services import SERVICES
from claimsvc.observability.console import Live
from tests.observability.console.watching import Instance
from tests.support.admin import ADMIN_DIGEST
from tests.support.serving import served

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Open = Callable[[], Awaitable[Instance]]


@pytest.fixture
def settings(database_url: str, redis_urls: tuple[str, ...]) -> Settings:
    return Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))


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


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: install the system package chromium")
    return CHROMIUM


@pytest.fixture
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    """A browser with a profile of its own, which is thrown away."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()
