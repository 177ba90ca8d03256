"""The page of a ticket: what it says of each state, to whom, and how it keeps up, in Chromium too."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from claimsvc.domain import AlreadyClaimed, Claim, ClaimState, QueueStop, SoldOut, Ticket, TicketState
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_app
from claimsvc.http.resources.tickets.words import words_of
from claimsvc.identity.tokens import open_tokens
from tests.http.memory_services import Observations, memory_services
from tests.http.ticketed import AT, HeldTickets, ended, started, ticket_id, waiting
from tests.support.chromium import CONTRAST, chromium
from tests.support.memory_store import MemoryStore
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer
from tests.support.waiting import until

CLAIM = Claim(ticket_id(9), "mega", "ann", ClaimState.ACTIVE, AT, code="SECRET-1")
EVERY_STATE = (
    waiting(4),
    waiting(4, stopped=QueueStop.UNAVAILABLE, eta_seconds=None),
    started(),
    ended(TicketState.CLAIMED, claim=CLAIM),
    ended(TicketState.REFUSED, refusal=SoldOut()),
    ended(TicketState.REFUSED, refusal=AlreadyClaimed(CLAIM)),
    *(ended(state) for state in (TicketState.EXPIRED, TicketState.LEFT, TicketState.DEAD)),
)


@dataclass
class Stage:
    """A service with a ticket, where users have tokens."""

    url: str
    held: HeldTickets
    client: aiohttp.ClientSession

    async def page(self, path: str = "", status: int = 200) -> tuple[str, aiohttp.ClientResponse]:
        async with self.client.get(f"{self.url}/queue/{path or ticket_id()}") as answer:
            assert (answer.status, answer.content_type) == (status, "text/html")
            return await answer.text(), answer


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    path, held = tmp_path / "keys.json", HeldTickets()
    path.write_text(json.dumps({"keys": [Issuer().public()]}), encoding="utf-8")
    async with open_tokens(str(path), issuer=ISSUER, audience=AUDIENCE) as tokens:
        services = memory_services(MemoryStore(), Observations(), tokens=tokens, tickets=held, progress=held)
        async with served(create_app(services)) as port, aiohttp.ClientSession() as client:
            yield Stage(f"http://127.0.0.1:{port}", held, client)


async def test_who_has_the_address_sees_the_place_but_neither_user_nor_code(stage: Stage) -> None:
    for ticket in EVERY_STATE:
        await stage.held.put(replace(ticket, user_id="somebody@example.com"))
        page, answer = await stage.page()
        words = words_of(ticket)
        assert re.findall(r"<title>(.*)</title>", page) == [words.title]
        assert re.findall(r"<h1>(.*?)</h1>", page) == [words.lines[0]]
        assert all(line in unescape(page) for line in words.lines)
        assert "somebody" not in page
        assert "SECRET" not in page
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_the_page_keeps_up_until_the_end_with_and_without_javascript(stage: Stage) -> None:
    for ticket in EVERY_STATE:
        await stage.held.put(ticket)
        page, _ = await stage.page()
        assert ('<noscript><meta http-equiv="refresh"' in page) is not ticket.state.is_end
        assert ("<script>" in page) is not ticket.state.is_end
        assert page.count('role="status" aria-live="polite"') == 1
    for eta, seconds in ((None, 30), (0.0, 3), (40.0, 10), (4000.0, 30)):
        await stage.held.put(waiting(4, eta_seconds=eta))
        assert f'content="{seconds}"></noscript>' in (await stage.page())[0]


async def test_its_policy_allows_its_own_style_and_script_alone(stage: Stage) -> None:
    await stage.held.put(waiting(4))
    page, answer = await stage.page()
    policy = answer.headers["Content-Security-Policy"]
    for name in ("style", "script"):
        [inside] = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert not {"unsafe-inline", "unsafe-eval", "http:", "https:"} & set(re.split(r"[ ;']+", policy))
    assert "//" not in re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)


async def test_what_is_not_known_and_what_cannot_be_read_is_a_page_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (ticket_id(7), "7", "%3Cscript%3E", "a" * 300):
        page, _ = await stage.page(path, 404)
        assert "not known" in page
        async with stage.client.get(f"{stage.url}/queue/{path}/events") as response:
            assert response.status == 404

    async def ticket(ticket_id: str) -> Ticket | None:
        raise UnavailableError("no database", dependency="postgresql")

    monkeypatch.setattr(stage.held, "ticket", ticket)
    page, answer = await stage.page(status=503)
    assert "You keep your place" in page
    assert answer.headers["Retry-After"] == "5"
    assert "database" not in page


async def test_the_events_of_the_page_say_what_the_page_says(stage: Stage) -> None:
    await stage.held.put(waiting(4))
    told: list[Any] = []
    async with stage.client.get(f"{stage.url}/queue/{ticket_id()}/events") as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:]))
                if len(told) == 1:
                    await until(lambda: stage.held.watching == 1, "the page watches")
                    await stage.held.put(ended(TicketState.CLAIMED, claim=CLAIM, user_id="somebody"))
                    assert "SECRET" not in json.dumps(told)
    assert told == [
        {"title": words.title, "lines": list(words.lines), "ended": words.ended}
        for words in (words_of(waiting(4)), words_of(ended(TicketState.CLAIMED)))
    ]


@pytest.mark.parametrize(
    ("ticket", "heading", "text"),
    [
        (
            waiting(0, eta_seconds=0.3),
            "You are number 1 in the queue",
            "Nobody is before you. It is your turn in a",
        ),
        (
            waiting(1, eta_seconds=7.2),
            "You are number 2 in the queue",
            "One other is before you. It is your turn in",
        ),
        (waiting(2, eta_seconds=7.2), "You are number 3 in the queue", "in about 8 seconds."),
        (waiting(1233, eta_seconds=41), "You are number 1,234 in the queue", "in about 45 seconds."),
        (waiting(9, eta_seconds=58), "You are number 10 in the queue", "in about a minute."),
        (waiting(9, eta_seconds=61), "You are number 10 in the queue", "in about 2 minutes."),
        (waiting(9, eta_seconds=3595), "You are number 10 in the queue", "in about an hour."),
        (waiting(9, eta_seconds=9000), "You are number 10 in the queue", "in about 3 hours."),
        (waiting(9, eta_seconds=None), "You are number 10 in the queue", "9 others are before you."),
        (waiting(9, stopped=QueueStop.PAUSED), "You are number 10 in the queue", "The queue is paused for now."),
        (
            ended(TicketState.CLAIMED, claim=replace(CLAIM, state=ClaimState.HELD)),
            "One is held for you",
            "Confirm it soon",
        ),
        (waiting(9, stopped=QueueStop.SOLD_OUT), "You are number 10 in the queue", "All are taken for now."),
        (waiting(ahead=None, stopped=QueueStop.NOT_STARTED), "You are in the draw", "drawn by lot at the start."),
        (ended(TicketState.REFUSED, refusal=SoldOut()), "You have not got one", "The reason: Sold out."),
    ],
)
def test_the_place_and_the_estimate_are_told_in_plain_words(ticket: Ticket, heading: str, text: str) -> None:
    words = words_of(ticket)
    assert words.lines[0] == heading
    assert words.title == f"{heading} - mega"
    assert text in words.lines[1]


def test_every_state_and_stop_has_words() -> None:
    for state in TicketState:
        assert words_of(replace(waiting(), state=state)).ended is state.is_end
    for claim_state in ClaimState:
        words_of(ended(TicketState.CLAIMED, claim=replace(CLAIM, state=claim_state)))
    for stop in QueueStop:
        assert "keep your place" in " ".join(words_of(waiting(stopped=stop)).lines)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def _open(browser: Browser, stage: Stage, complaints: list[str], **options: Any) -> Page:
    page = await browser.new_page(viewport={"width": 360, "height": 740}, **options)
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(f"{stage.url}/queue/{ticket_id()}")
    return page


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
async def test_a_browser_shows_the_place_as_it_changes(stage: Stage, browser: Browser) -> None:
    complaints: list[str] = []
    await stage.held.put(waiting(4))
    page = await _open(browser, stage, complaints)
    heading = page.get_by_role("status").get_by_role("heading")
    await expect(heading).to_have_text("You are number 5 in the queue")
    for change, text in (
        (waiting(1), "You are number 2 in the queue"),
        (ended(TicketState.CLAIMED), "You have got one"),
    ):
        await until(lambda: stage.held.watching == 1, "the page watches")
        await stage.held.put(change)
        await expect(heading).to_have_text(text)
        await expect(page).to_have_title(f"{text} - mega")
    await until(lambda: stage.held.watching == 0, "the page watches no more")
    assert complaints == []


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
async def test_a_browser_without_javascript_shows_it_too(stage: Stage, browser: Browser) -> None:
    await stage.held.put(waiting(4))
    page = await _open(browser, stage, [], java_script_enabled=False)
    await expect(page.get_by_role("heading")).to_have_text("You are number 5 in the queue")
    await stage.held.put(ended(TicketState.EXPIRED))
    await expect(page.get_by_role("heading")).to_have_text("Your place has expired")


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
async def test_the_page_is_readable_in_light_and_dark_and_on_a_phone(stage: Stage, browser: Browser) -> None:
    complaints: list[str] = []
    await stage.held.put(waiting(4, coupon_name="x" * 255))
    for scheme in ("light", "dark"):
        page = await _open(browser, stage, complaints, color_scheme=scheme)
        for selector in ("h1", "#now p", ".status"):
            assert await page.evaluate(CONTRAST, selector) >= 4.5, (scheme, selector)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert complaints == []
