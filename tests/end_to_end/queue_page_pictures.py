"""Makes the documentation's pictures of the page for people who wait.

`python -m tests.end_to_end.queue_page_pictures`, from the checkout's root: one real instance on embedded servers, and a
queue in which some wait.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
from playwright.async_api import async_playwright

from claimsvc.bootstrap import application, migrate
from claimsvc.config import Settings
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.chromium import CHROMIUM, FLAGS
from tests.support.serving import served

FOLDER = Path("docs/images")
_QUEUE = {"rate_per_second": 2, "concurrency": 5, "max_wait_seconds": 600, "max_length": 1000}
_AHEAD = 60


async def shoot(services: EmbeddedServices) -> None:
    """Let users wait, and take the pictures of one who is among them."""
    settings = Settings(database_url=services.database_url, redis_urls=services.redis_urls, admin_keys=(ADMIN_DIGEST,))
    async with application(settings) as app, served(app) as port, aiohttp.ClientSession(headers=ADMIN) as session:
        url = f"http://127.0.0.1:{port}"
        coupon = {"name": "MEGADEAL", "amount": 500, "queue": _QUEUE}
        (await session.post(f"{url}/api/coupons", json=coupon)).raise_for_status()
        for number in range(_AHEAD):
            claim = {"user_id": f"user-{number}", "coupon_name": "MEGADEAL"}
            answer = await session.post(f"{url}/api/coupons/claim", json=claim)
        ticket = await answer.json()
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for scheme in ("light", "dark"):
                page = await browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 480})
                await page.goto(f"{url}/queue/{ticket['id']}")
                await page.wait_for_timeout(1500)
                await page.screenshot(path=FOLDER / f"queue-{scheme}.png")
                await page.close()
            await browser.close()


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
