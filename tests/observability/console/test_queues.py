"""The console's queues: which are shown, with what, and that nobody reads them for nobody."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from claimsvc.domain import Queue, QueueStatus, QueueStop
from claimsvc.errors import UnavailableError
from claimsvc.observability.console import queues
from claimsvc.observability.console.diagnosis import judge
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.queues import MOST_QUEUES, QueueRow, QueueWatch
from claimsvc.observability.console.verdict import Verdict
from tests.observability.console.conftest import Open
from tests.observability.console.summaries import healthy, heard, picture
from tests.observability.console.watching import Instance

_SLOW = {"rate_per_second": 1, "concurrency": 1, "max_wait_seconds": 60, "max_length": 100}


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def status(name: str = "spring", **changes: object) -> QueueStatus:
    usual = QueueStatus(
        coupon_name=name,
        queue=Queue(rate_per_second=10, concurrency=5, max_wait_seconds=100, max_length=1000),
        waiting=7,
        started=2,
        dead=0,
        pace=9.53,
        stopped=None,
        is_paused=False,
        oldest_joined_at=ago(30),
        dispatcher="host:1:abc",
        dispatched_at=ago(1),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


Look = Callable[..., Awaitable[QueueWatch]]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Looks once at queues, or at errors."""
    monkeypatch.setattr(queues, "_LOOK_SECONDS", 0.0)

    async def looked(*answers: Sequence[QueueStatus] | Exception) -> QueueWatch:
        left = list(answers)

        async def read() -> Sequence[QueueStatus]:
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        watch = QueueWatch(read, lambda name: name.rpartition(":")[0])
        while left:
            await watch.look()
        return watch

    return looked


async def row(look: Look, **changes: Any) -> QueueRow:
    [found] = (await look([status(**changes)])).shown.rows
    return found


async def test_a_queue_is_shown_with_its_length_pace_and_who_starts_it(look: Look) -> None:
    shown = await row(look, dead=3)
    assert (shown.name, shown.waiting, shown.started, shown.dead) == ("spring", 7, 2, 3)
    assert (shown.pace, shown.rate_per_second, shown.concurrency, shown.max_wait_seconds) == (9.5, 10, 5, 100)
    assert (shown.state, shown.dispatcher, shown.dispatcher_name) == ("waiting", "host:1:abc", "host:1")
    assert shown.oldest_joined_at == pytest.approx(ago(30).timestamp(), abs=5)


@pytest.mark.parametrize("stop", QueueStop)
async def test_why_nothing_is_started_is_said(look: Look, stop: QueueStop) -> None:
    assert (await row(look, stopped=stop)).state == stop


async def test_a_queue_that_nobody_starts_though_nobody_stopped_it_stands_still(look: Look) -> None:
    assert (await row(look, dispatched_at=ago(20))).state == "stalled"
    # Whatever stops it by itself is over within seconds.
    assert (await row(look, dispatched_at=ago(20), stopped=QueueStop.UNAVAILABLE)).state == "stalled"
    assert (await row(look, dispatched_at=ago(20), stopped=QueueStop.PAUSED, is_paused=True)).state == "paused"
    assert (await row(look, waiting=0, started=0, dispatched_at=ago(20), dead=1)).state == "empty"


async def test_the_longest_queues_are_shown_and_how_many_others_there_are(look: Look) -> None:
    many = [status(f"coupon-{number}", waiting=number) for number in range(30)]
    shown = (await look(many)).shown
    assert [row.name for row in shown.rows] == [f"coupon-{29 - number}" for number in range(MOST_QUEUES)]
    assert shown.more == 30 - MOST_QUEUES


async def test_what_cannot_be_read_any_more_stays_and_is_told_to_be_old(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = await look([status()], UnavailableError("it is gone", dependency="postgresql"))
    assert watch.shown.age_seconds == 0
    monkeypatch.setattr(queues, "_OLD_SECONDS", 0.0)
    monkeypatch.setattr(watch, "_read_at", time.monotonic() - 9)
    assert [row.name for row in watch.shown.rows] == ["spring"]
    assert watch.shown.age_seconds == 9
    watch.forget()
    assert (watch.shown.rows, watch.shown.age_seconds) == ((), 0)


async def said(look: Look, *told: Heard, **changes: Any) -> Verdict:
    return judge(picture(*(told or (heard("here"),))), queues=[await row(look, **changes)])


async def test_the_sentence_says_that_a_queue_stands_still(look: Look) -> None:
    stalled = await said(look, dispatched_at=ago(20))
    assert (stalled.kind, stalled.level) == ("queue-stalled spring", "bad")
    assert stalled.text == "The queue of spring stands still: 7 claims wait, and none is started."
    assert stalled.since == pytest.approx(ago(20).timestamp(), abs=5)
    assert "claimsvc doctor" in stalled.advice
    assert (await said(look)).level == "quiet"
    assert (await said(look, dispatched_at=ago(20), stopped=QueueStop.PAUSED)).level == "quiet"
    # What makes all claims fail comes first.
    gone = heard("here", health=healthy(postgresql=time.time() - 30))
    assert (await said(look, gone, dispatched_at=ago(20))).text.startswith("Not ready")


async def test_the_sentence_says_that_there_are_dead_letters(look: Look) -> None:
    dead = await said(look, dead=3)
    assert (dead.kind, dead.level) == ("given-up", "warning")
    assert dead.text == "The service has given up 3 claims that waited for spring."


def queue_of(message: dict[str, Any], name: str) -> dict[str, Any]:
    return next((row for row in message["queues"]["rows"] if row["name"] == name), {})


async def test_a_viewer_sees_a_queue_and_without_viewers_nobody_reads_it(instance: Instance) -> None:
    await instance.create("spring", 100, queue=_SLOW)
    reads = 0
    watch = instance.live._queues
    read = watch._read

    async def counted() -> Sequence[QueueStatus]:
        nonlocal reads
        reads += 1
        return await read()

    watch._read = counted
    assert await instance.claim("spring", 8) == [202] * 8
    await asyncio.sleep(1.5)
    assert reads == 0
    async with instance.watched() as watcher:
        seen = await watcher.sees(lambda seen: queue_of(seen, "spring").get("waiting"))
        shown = queue_of(seen, "spring")
        assert 0 < shown["waiting"] < 8
        assert shown["state"] == "waiting"
        assert shown["dispatcher"] in [each["id"] for each in seen["picture"]["instances"]]
        assert shown["rate_per_second"] == 1
    await asyncio.sleep(1.5)  # what is being read ends
    reads = 0
    await asyncio.sleep(1.5)
    assert reads == 0


@pytest.mark.xdist_group("chromium")
async def test_the_page_shows_queues_only_where_there_are_any(browser: Browser, open_instance: Open) -> None:
    instance = await open_instance()
    page = await browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(f"{instance.url}/console")
    await expect(page.locator("#connection-text")).to_have_text("live")
    await expect(page.locator("#queues-card")).to_be_hidden()
    await instance.create("spring", 100, queue=_SLOW)
    await instance.claim("spring", 15)
    shown = page.locator("#queues tbody tr", has_text="spring")
    await expect(shown).to_contain_text("started in turn")
    await expect(shown).to_contain_text("of 1 min 0 s")
    await expect(shown.locator("td").last).to_contain_text("A (")
    await expect(page.locator("#legend")).to_contain_text("queued")
    for heading in await page.locator("#queues thead th").all():
        assert await page.locator(f"#{await heading.get_attribute('aria-describedby')}").text_content()
    await page.set_viewport_size({"width": 360, "height": 740})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert complaints == []
