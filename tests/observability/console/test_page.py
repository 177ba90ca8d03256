"""The console's page in a real Chromium: what it shows, on which screens, and how it is worked without a mouse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from playwright.async_api import Browser, Page, expect

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.embedded import free_port
from claimsvc.http.framework.services import ForDevelopment
from claimsvc.observability.console import Live
from claimsvc.server.stress import StressTests
from tests.observability.console.conftest import Open
from tests.observability.console.watching import Instance, coupon
from tests.support.admin import ADMIN_KEY
from tests.support.chromium import CONTRAST
from tests.support.serving import served
from tests.support.waiting import until

# Longer than Playwright's 5 s: other tests run on the same machine.
expect.set_options(timeout=20_000)

pytestmark = pytest.mark.xdist_group("chromium")

Look = Callable[..., Awaitable[Page]]
_PHONE = {"width": 360, "height": 740}


@pytest.fixture
async def look(browser: Browser, open_instance: Open) -> AsyncIterator[Look]:
    """Opens consoles. Whatever their pages complain of, the policy's refusals included, fails the test.

    It asks for `open_instance` so that it ends first: a page whose service is gone complains, and is right.
    """
    complaints: list[str] = []

    async def open_page(instance: Instance, **options: object) -> Page:
        page = await browser.new_page(**options)  # type: ignore[arg-type]
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{instance.url}/console")
        return page

    yield open_page
    assert complaints == []


async def test_the_first_figures_are_there_a_second_after_the_page_was_asked_for(
    look: Look, instance: Instance
) -> None:
    await instance.create("spring", 60)
    await instance.claim("spring", 10)
    page = await look(instance)
    took: list[float] = []
    while len(took) < 5 and min(took, default=1000) >= 1000:  # other tests may keep this machine busy
        await page.reload()
        # Not `wait_for_function`, which looks again by means that the page's policy forbids.
        await until(lambda: page.evaluate("performance.getEntriesByName('first-figures').length"), "figures are shown")
        took.append(await page.evaluate("performance.getEntriesByName('first-figures')[0].startTime"))
    assert min(took) < 1000
    await expect(page.locator("#coupons tbody tr .stock")).to_contain_text("50 of 60")


async def test_stock_drains_before_the_readers_eyes(look: Look, instance: Instance) -> None:
    await instance.create("spring", 60)
    await instance.claim("spring", 10)
    page = await look(instance)
    row = page.locator("#coupons tbody tr", has_text="spring")
    await expect(row.locator(".stock")).to_contain_text("50 of 60")
    await instance.claim("spring", 30)
    await expect(row.locator(".stock")).to_contain_text("20 of 60")
    await instance.claim("spring", 30)
    await expect(row.locator(".stock")).to_contain_text("sold out")
    await expect(page.locator("#events")).to_contain_text("spring is sold out")
    await expect(page.locator("#connection-text")).to_have_text("live")


@pytest.mark.slow
async def test_a_newcomer_reads_which_coupon_is_contended_and_why(look: Look, open_instance: Open) -> None:
    here, there = await open_instance(), await open_instance()
    for name in ("autumn", "spring"):
        await here.create(name, 1_000_000)
    await here.claim("autumn", 5)
    page = await look(here)
    async with here.claiming("spring", 5), there.claiming("spring", 5):
        sentence = page.locator("#verdict-text")
        await expect(sentence).to_contain_text("spring is contended: 2 instances take turns", timeout=15_000)
        await expect(sentence).to_contain_text("of their time is waiting for its lock")
        first = page.locator("#coupons tbody tr").first
        await expect(first).to_contain_text("spring")
        await expect(first).to_contain_text("hottest now")
        await expect(first.locator(".turn")).to_have_count(2)
        await expect(page.locator("#instances tbody tr")).to_have_count(2)


@pytest.mark.slow
async def test_claims_that_give_up_are_told_with_what_to_do(look: Look, open_instance: Open, database_url: str) -> None:
    here, there = await open_instance(), await open_instance()
    await here.create("spring", 50)
    await asyncio.gather(here.claim("spring"), there.claim("spring"))
    page = await look(here)
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url) as obstacle:
        obstacle.execute("SELECT FROM coupons FOR UPDATE")
        held_up = asyncio.create_task(there.claim("spring"))
        with psycopg.connect(url, autocommit=True) as looker:
            block = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            await until(lambda: looker.execute(block).fetchone() is not None, "a claim holds the lock, and is held up")
        assert await here.claim("spring", 3) == [503] * 3
        await expect(page.locator("#verdict")).to_have_attribute("data-level", "bad")
        await expect(page.locator("#verdict-text")).to_contain_text("gave up waiting for the lock")
        await expect(page.locator("#verdict-text")).to_contain_text("with stock left")
        await expect(page.locator("#verdict-evidence")).to_contain_text("3 claims gave up, the last")
        await expect(page.locator("#tile-gave-up .value")).to_have_text("3")
    await held_up
    await expect(page.locator("#verdict-text")).to_contain_text("That has ended")
    await expect(page.locator("#verdict")).to_have_attribute("data-level", "warning")
    assert "That has ended" in (await page.locator("#verdict-spoken").text_content() or "")
    await expect(page.locator("#verdict-age")).to_contain_text("In this state for")


@pytest.mark.slow
async def test_the_sentence_and_the_row_below_it_have_the_same_figures_at_any_moment(
    look: Look, open_instance: Open
) -> None:
    here, there = await open_instance(), await open_instance()
    await here.create("spring", 1_000_000)
    page = await look(here)
    async with here.claiming("spring", 5), there.claiming("spring", 5):
        await expect(page.locator("#verdict-text")).to_contain_text("spring is contended")
        for _ in range(10):
            text, lock, wait = await page.evaluate(
                "['#verdict-text', '#coupons .state', '#coupons tbody td:nth-child(5) .strong']"
                ".map((each) => document.querySelector(each).textContent)"
            )
            if "is contended" in text:
                assert f"and {lock.removeprefix('contended: ').removesuffix(' waiting')} of their time" in text
                assert f"({wait} each time)" in text
            await asyncio.sleep(0.3)


async def test_the_age_of_everything_is_said_in_words(browser: Browser, settings: Settings) -> None:
    async with application(settings) as app:
        async with served(app) as port:
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{port}/console")
            await expect(page.locator("#ages")).to_have_text("Everything on this page is less than 3 s old.")
        await expect(page.locator("#ages")).to_contain_text("s old: nothing has been received since.")
        await expect(page.locator("#verdict-text")).to_contain_text("This page is cut off from the service")
        before = await page.locator("#ages").text_content()
        await expect(page.locator("#ages")).not_to_have_text(str(before))  # it grows


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_everything_without_scrolling_sideways(look: Look, instance: Instance, scheme: str) -> None:
    await instance.create("a-coupon-with-a-rather-long-name-for-so-small-a-screen.2026", 100)
    page = await look(instance, viewport=_PHONE, color_scheme=scheme)
    await instance.claim("a-coupon-with-a-rather-long-name-for-so-small-a-screen.2026", 20)
    await expect(page.locator("#coupons tbody tr")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= _PHONE["width"]
    for heading in await page.locator("h2:not(.unseen)").all():
        if await heading.is_visible():
            box = await heading.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= _PHONE["width"]


@pytest.mark.slow
async def test_light_and_dark_differ_and_both_are_readable(look: Look, instance: Instance) -> None:
    """Contrast of text on its card, by WCAG 2.2: at least 4.5 to 1."""
    await instance.create("spring", 100)
    await instance.claim("spring", 5)
    backgrounds = set()
    for scheme in ("light", "dark"):
        page = await look(instance, color_scheme=scheme)
        await expect(page.locator("#coupons tbody tr")).to_have_count(1)
        backgrounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for selector in (
            "#verdict-text",
            ".level",
            ".tile h3",
            "#coupons .sub",
            "#coupons .strong",
            "#fire",
            "footer a",
        ):
            assert await page.evaluate(CONTRAST, selector) >= 4.5, (scheme, selector)
    assert len(backgrounds) == 2


@pytest.mark.slow
async def test_everything_is_reached_and_worked_by_keyboard(look: Look, instance: Instance) -> None:
    await instance.create("spring", 100)
    page = await look(instance)
    await instance.claim("spring", 5)
    await expect(page.locator("#coupons tbody tr")).to_have_count(1)
    reached = []
    for _ in range(7):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached
    assert reached[0] == "Skip to the coupons"
    assert "Pause" in reached
    assert "What the columns mea" in reached
    # The stock is looked at every two seconds, and later where much else goes on.
    await expect(page.locator("#coupons .stock")).to_contain_text("95 of 100")
    await page.locator("#pause").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#connection-text")).to_have_text("paused")
    async with instance.watched() as watcher:
        await instance.claim("spring", 5)
        await watcher.sees(lambda seen: coupon(seen, "spring").get("remaining") == 90)
        await watcher.sees(lambda _: len(watcher.pictures) > 3)
    await expect(page.locator("#coupons .stock")).to_contain_text("95 of 100")
    await page.keyboard.press("Space")
    await expect(page.locator("#coupons .stock")).to_contain_text("90 of 100")


async def test_a_screen_reader_finds_landmarks_captions_and_one_live_region(look: Look, instance: Instance) -> None:
    await instance.create("spring", 100)
    page = await look(instance)
    await instance.claim("spring", 5)
    await expect(page.get_by_role("row", name="spring")).to_have_count(1)
    for role in ("banner", "main", "contentinfo", "navigation"):
        await expect(page.get_by_role(role)).to_have_count(1)
    await expect(page.get_by_role("table")).to_have_count(3)
    captions = await page.locator("table caption").all_text_contents()
    assert len(captions) == 4  # that of queues is hidden where there are none
    assert all(captions)
    assert await page.locator("[aria-live]").count() == 1
    for section in await page.locator("main section").all():
        heading = await section.get_attribute("aria-labelledby")
        assert await page.locator(f"#{heading}").count() == 1


@pytest.mark.slow
async def test_who_wants_less_motion_gets_none(look: Look, instance: Instance) -> None:
    page = await look(instance, reduced_motion="reduce")
    await instance.create("spring", 100)
    await instance.claim("spring", 5)
    await expect(page.locator("#coupons tbody tr")).to_have_count(1)
    assert await page.evaluate("getComputedStyle(document.querySelector('.fill')).transitionDuration") == "0s"


@pytest.mark.slow
async def test_a_page_whose_service_went_away_says_so_and_comes_back(browser: Browser, settings: Settings) -> None:
    async with application(settings) as app:
        async with served(app) as port:
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{port}/console")
            await expect(page.locator("#connection-text")).to_have_text("live")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "lost", timeout=10_000)
        await expect(page.locator("#verdict-text")).to_contain_text("is old", timeout=10_000)
    async with application(settings) as app, served(app, port=port):
        await expect(page.locator("#connection-text")).to_have_text("live", timeout=15_000)
        await expect(page.locator("#verdict-text")).not_to_contain_text("is old", timeout=10_000)


@asynccontextmanager
async def in_development(settings: Settings) -> AsyncIterator[str]:
    """The service as `claimsvc dev` runs it; the URL."""
    port = free_port()
    made: list[StressTests] = []

    def stress(live: Live) -> StressTests:
        made.append(StressTests(live, f"http://127.0.0.1:{port}", ADMIN_KEY))
        return made[-1]

    development = ForDevelopment(port=port, stress=stress)
    async with application(settings, development) as app, served(app, header_timeout_seconds=10, port=port):
        yield f"http://127.0.0.1:{port}"
        await made[0].aclose()


@pytest.mark.slow
async def test_in_development_a_button_fires_the_stress_test_and_shows_its_result(
    browser: Browser, settings: Settings
) -> None:
    async with in_development(settings) as url:
        page = await browser.new_page()
        await page.goto(f"{url}/console")
        await page.get_by_label("Scenario").select_option("stampede")
        fire = page.locator("#fire")
        await fire.evaluate(_NOTE_TEXTS)
        await fire.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#stress-state")).to_contain_text("✓ passed", timeout=60_000)
        await expect(page.locator("#stress-outcomes")).to_contain_text("409 sold-out")
        await expect(page.locator("#stress-outcomes")).to_contain_text("999")
        await expect(page.locator("#coupons tbody tr").first).to_contain_text("stampede")
        await expect(fire).to_have_text("Start")
        assert await page.evaluate("window.texts") == ["Running", "Start"]


# A stress test may be over before anybody looks at the button.
_NOTE_TEXTS = """button => {
    window.texts = [];
    new MutationObserver(() => window.texts.push(button.textContent)).observe(button, {childList: true, subtree: true,
        characterData: true});
}"""
_PRESS_OFTEN = """times => Promise.all(Array.from({length: times}, async () => (await fetch("/console/stress-test", {
    method: "POST", headers: {"Content-Type": "application/json"}, body: '{"scenario":"stampede"}'})).status))"""


@pytest.mark.slow
async def test_however_often_it_is_fired_at_once_one_stress_test_runs(browser: Browser, settings: Settings) -> None:
    async with in_development(settings) as url:
        page = await browser.new_page()
        await page.goto(f"{url}/console")
        statuses = await page.evaluate(_PRESS_OFTEN, 20)
        assert sorted(statuses) == [202, *[409] * 19]


@pytest.mark.slow
async def test_every_column_is_defined_where_a_reader_finds_it(look: Look, instance: Instance) -> None:
    await instance.create("spring", 100)
    page = await look(instance)
    await instance.claim("spring", 5)
    await expect(page.locator("#coupons tbody tr")).to_have_count(1)
    for heading in await page.locator("thead th").all():
        definition = await page.locator(f"#{await heading.get_attribute('aria-describedby')}").text_content()
        assert definition
        assert await heading.get_attribute("title") == definition
    details = page.locator("#coupons + details, #coupons ~ details").first
    await details.locator("summary").focus()
    await page.keyboard.press("Enter")
    await expect(details.locator("dd").first).to_be_visible()
    await expect(details).to_contain_text("in the last second")


@pytest.mark.slow
async def test_no_series_is_red(look: Look, instance: Instance) -> None:
    """Red says that something is bad; what a colour only tells apart must have another."""
    for scheme in ("light", "dark"):
        page = await look(instance, color_scheme=scheme)
        hues = await page.evaluate(_HUES)
        assert len(hues) >= 13
        red = {name: hue for name, hue in hues.items() if hue is not None and (hue < 18 or hue > 335)}
        assert red == {}, scheme


_HUES = """() => {
    const names = ["claimed", "already-claimed", "sold-out", "not-open", "lock-busy", "unavailable", "internal-error",
        "redis", ...[0, 1, 2, 3, 4, 5].map(place => `turn-${place}`)];
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    return Object.fromEntries(names.map(name => {
        const colour = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
        if (!colour) throw new Error(name);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data.map(value => value);
        const high = Math.max(r, g, b), range = high - Math.min(r, g, b);
        if (range < 40) return [name, null];
        const hue = high === r ? (g - b) / range : high === g ? 2 + (b - r) / range : 4 + (r - g) / range;
        return [name, (60 * hue + 360) % 360];
    }));
}"""


@pytest.mark.slow
async def test_a_page_that_was_refused_comes_back_though_it_was_hidden_meanwhile(
    browser: Browser, instance: Instance
) -> None:
    instance.live.most_viewers = 0
    page = await browser.new_page()
    await page.goto(f"{instance.url}/console")
    await expect(page.locator("#connection-text")).to_contain_text("too many viewers")
    for hidden in ("true", "false"):
        await page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
    instance.live.most_viewers = 10
    await expect(page.locator("#connection-text")).to_have_text("live")


async def test_outside_development_there_is_no_button(look: Look, instance: Instance) -> None:
    page = await look(instance)
    await expect(page.locator("#connection-text")).to_have_text("live")
    await expect(page.locator("#stress")).to_be_hidden()
