"""Makes the documentation's pictures of the console.

`python -m tests.observability.console.screenshots`, from the checkout's root.
Three real instances on embedded servers, claims on a hot coupon at two of them and on others at the third.
"""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from playwright.async_api import Browser, Page, async_playwright

from claimsvc.bootstrap import application, migrate
from claimsvc.config import Settings
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.http.framework.services import SERVICES
from tests.observability.console.watching import Instance
from tests.support.admin import ADMIN_DIGEST
from tests.support.chromium import CHROMIUM, FLAGS
from tests.support.serving import served

FOLDER = Path("dashboards/screenshots")
_SHOTS = {
    "console-light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 1000}},
    "console-dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 1000}},
    "console-phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 780}},
}
_WATCHED_SECONDS = 20.0
_QUEUE = {"rate_per_second": 3, "concurrency": 5, "max_wait_seconds": 600, "max_length": 1000}


async def shoot(services: EmbeddedServices) -> None:
    """Start the instances, claim, and take the pictures."""
    settings = Settings(database_url=services.database_url, redis_urls=services.redis_urls, admin_keys=(ADMIN_DIGEST,))
    async with AsyncExitStack() as stack:
        instances = [await _start(stack, settings, f"app-{number}:7") for number in (1, 2, 3)]
        for name, amount in (("SUMMER", 20_000), ("WELCOME-10", 400), ("VIP", 60), ("NEWSLETTER", 5_000)):
            await instances[0].create(name, amount)
        await instances[0].create("MEGADEAL", 5_000, queue=_QUEUE)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        stack.push_async_callback(browser.close)
        for instance in instances:
            await stack.enter_async_context(instance.claiming("SUMMER", 2))
        await stack.enter_async_context(instances[0].claiming("WELCOME-10", 1))
        await stack.enter_async_context(instances[1].claiming("VIP", 1))
        await stack.enter_async_context(instances[2].claiming("NEWSLETTER", 1))
        await instances[2].claim("MEGADEAL", 400)
        for name, options in _SHOTS.items():
            page = await _open(browser, instances[0], options)
            await asyncio.sleep(_WATCHED_SECONDS)
            await page.screenshot(path=FOLDER / f"{name}.png")
            if name == "console-light":
                await page.locator("#queues-card").screenshot(path=FOLDER / "console-queues.png")
            await page.close()


async def _start(stack: AsyncExitStack, settings: Settings, name: str) -> Instance:
    app = await stack.enter_async_context(application(settings))
    port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
    live = app[SERVICES].live
    assert live is not None
    live._window.name = name  # this machine's is nothing for a picture
    client = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    return Instance(f"http://127.0.0.1:{port}", live, client)


async def _open(browser: Browser, instance: Instance, options: Mapping[str, object]) -> Page:
    page = await browser.new_page(**options)  # type: ignore[arg-type]
    await page.goto(f"{instance.url}/console")
    return page


def main() -> None:
    """Take the pictures, or say what is missing."""
    if not CHROMIUM.exists():
        sys.exit(f"error: there is no {CHROMIUM}: install the system package chromium")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with temporary_state_dir() as state_dir, embedded_services(state_dir, masters=3, durable=False) as services:
        migrate(services.database_url)
        asyncio.run(shoot(services))


if __name__ == "__main__":
    main()
