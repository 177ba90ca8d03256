"""Pages for people: what runs here, what a problem means, and the API; in Chromium, in light and dark."""

import re
from collections.abc import AsyncIterator
from importlib.resources import files

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from claimsvc.http.app import create_app, create_operators_app
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.chromium import CONTRAST, chromium
from tests.support.memory_store import MemoryStore
from tests.support.raw_http import connected, request
from tests.support.serving import served

# Longer than Playwright's 5 s: other tests run on the same machine.
expect.set_options(timeout=20_000)


async def page_of(url: str) -> tuple[str, aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as client, client.get(url, headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        return await answer.text(), answer


async def test_the_first_page_says_what_runs_here_and_all_its_links_lead_somewhere(service: Service) -> None:
    page, answer = await page_of(f"{service.url}/")
    assert "gives out coupons of limited stock" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert {"/docs", "/console", "/readyz?verbose", "/metrics", "/api/coupons"} <= set(links)
    for link in links:
        async with service.client.get(f"{service.url}{link}") as there:
            assert there.status == 200, link
    assert f"curl -X POST http://127.0.0.1:{service.port}/api/coupons/claim" in page
    assert answer.headers["Cache-Control"] == "no-cache"
    async with service.client.head(f"{service.url}/?from=somewhere") as head:
        assert head.status == 200


async def test_where_operators_have_a_port_of_their_own_each_port_names_what_it_has() -> None:
    app = create_app(memory_services(MemoryStore(), Observations()), operators_apart=True)
    async with served(app) as public, served(create_operators_app(app)) as operators, aiohttp.ClientSession() as client:
        pages = {}
        for port in (public, operators):
            pages[port], _ = await page_of(f"http://127.0.0.1:{port}/")
            for link in re.findall(r'href="([^"]+)"', pages[port]):
                async with client.get(f"http://127.0.0.1:{port}{link}") as there:
                    assert there.status == 200, link
        assert "/console" not in pages[public]
        assert "on the port for operators" in pages[public]
        assert 'href="/console"' in pages[operators]
        assert "curl" not in pages[operators]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("claims.example:8080", "http://claims.example:8080/api"),
        ("[::1]:80", "http://[::1]:80/api"),
        ("a'$(id)", "http://HOST/api"),
        ("<script>", "http://HOST/api"),
    ],
)
async def test_a_command_to_copy_has_no_host_that_a_shell_would_run(service: Service, host: str, shown: str) -> None:
    async with connected(service.port) as wire:
        await wire.send(request("GET", "/", Host=host, Connection="close"))
        [answer] = await wire.answers()
    if answer.status == 200:
        assert shown in answer.body.decode()
    else:
        assert answer.status == 400


def test_the_pages_have_the_consoles_colours() -> None:
    console = (files("claimsvc.http.resources.console") / "static" / "console.css").read_text()
    of_console = [
        dict(re.findall(r"(--[\w-]+): ([^;]+);", part)) for part in console.split("prefers-color-scheme: dark")
    ]
    for room, name in (("framework", "pages.css"), ("resources.operations", "docs.css")):
        style = (files(f"claimsvc.http.{room}") / "static" / name).read_text()
        parts = re.split(r"prefers-color-scheme: dark|html\.dark-mode \{\n", style, maxsplit=1)
        assert len(parts) == 2
        for ours, theirs in zip(parts, of_console, strict=True):
            colours = re.findall(r"(--[\w-]+): ([^;]+);", ours)
            assert colours
            assert [(each, theirs[each]) for each, _ in colours] == colours


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def open_page(browser: Browser, url: str, scheme: str, complaints: list[str]) -> Page:
    page = await browser.new_page(color_scheme=scheme, viewport={"width": 360, "height": 740})  # type: ignore[arg-type]
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    return page


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
async def test_each_page_is_readable_in_light_and_dark_and_on_a_phone(browser: Browser, demo_url: str) -> None:
    complaints: list[str] = []
    backgrounds: dict[str, set[str]] = {}
    for path, selectors in (
        ("/", ("h1", "main p", ".links a", ".links span", "pre code")),
        ("/problems/sold-out", ("h1", "main p", ".status", ".back a")),
        ("/docs", (".home strong", ".home a", ".info .title", ".opblock-tag")),
    ):
        for scheme in ("light", "dark"):
            page = await open_page(browser, f"{demo_url}{path}", scheme, complaints)
            await expect(page.locator(selectors[-1]).first).to_be_visible()
            for selector in selectors:
                assert await page.evaluate(CONTRAST, selector) >= 4.5, (path, scheme, selector)
            colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            backgrounds.setdefault(scheme, set()).add(colour)
            if path != "/docs":
                assert await page.evaluate("document.documentElement.scrollWidth") <= 360
            await page.close()
    assert complaints == []
    assert all(len(colours) == 1 for colours in backgrounds.values()), "each page like the others"
    assert backgrounds["light"] != backgrounds["dark"]


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
async def test_a_claim_is_tried_out_with_three_clicks_and_the_next_one_too(browser: Browser, demo_url: str) -> None:
    complaints: list[str] = []
    page = await open_page(browser, f"{demo_url}/docs", "light", complaints)
    operation = page.locator("#operations-claims-claim_coupon")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    for status in ("201", "409"):  # the same user again
        await operation.get_by_role("button", name="Execute").click()
        await expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text(status)
    assert [each for each in complaints if "409" not in each] == []
