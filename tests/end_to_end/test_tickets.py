"""Claims that wait in a queue: from the request to the outcome, as their users follow them at several instances."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.conftest import OpenService
from tests.support.admin import ADMIN

MEGADEAL = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100}


async def _coupon(client: aiohttp.ClientSession, url: str, amount: int, **more: object) -> None:
    body = {"name": "mega", "amount": amount, "queue": MEGADEAL, **more}
    async with client.post(f"{url}/api/coupons", json=body, headers=ADMIN) as response:
        assert response.status == 201, await response.text()


async def _claim(client: aiohttp.ClientSession, url: str, user: str, **headers: str) -> tuple[int, Any, Any]:
    body = {"user_id": user, "coupon_name": "mega"}
    async with client.post(f"{url}/api/coupons/claim", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None), response.headers


async def _read(client: aiohttp.ClientSession, url: str, ticket: Any, **headers: str) -> Any:
    async with client.get(f"{url}/api/tickets/{ticket['id']}", headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def _pause(client: aiohttp.ClientSession, url: str, word: str = "pause") -> None:
    async with client.post(
        f"{url}/api/coupons/mega/queue/{word}", json={"reason": "a test"}, headers=ADMIN
    ) as response:
        assert response.status == 200, await response.text()


async def _follow(client: aiohttp.ClientSession, url: str, ticket: Any, path: str = "api/tickets") -> list[Any]:
    """All events of a ticket, until it has ended."""
    async with client.get(f"{url}/{path}/{ticket['id']}/events") as response:
        assert response.status == 200
        return [json.loads(line[6:]) async for line in response.content if line.startswith(b"data: ")]


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_who_waits_gets_a_unit_in_turn_and_hears_of_it_at_any_instance(
    open_service: OpenService, client: aiohttp.ClientSession
) -> None:
    here, there = await open_service(), await open_service()
    await _coupon(client, here, 12)
    await _pause(client, here)
    users = [f"user-{number}" for number in range(12)]
    joined = [await _claim(client, (here, there)[number % 2], user) for number, user in enumerate(users)]
    assert {status for status, _, _ in joined} == {202}
    assert [(body["user_id"], body["position"]) for _, body, _ in joined] == [*zip(users, range(1, 13), strict=True)]
    read = await _read(client, there, joined[3][1])
    assert (read["position"], read["eta_seconds"], read["stopped"]) == (4, None, "paused")
    assert all(headers["Location"] == f"/api/tickets/{body['id']}" for _, body, headers in joined)
    _, again, _ = await _claim(client, there, users[5])
    assert (again["id"], again["position"]) == (joined[5][1]["id"], 6)

    followed = [_follow(client, (there, here)[n % 2], body) for n, (_, body, _) in enumerate(joined)]
    following = asyncio.gather(*followed)
    await _pause(client, there, "resume")
    told = await asyncio.wait_for(following, 30)
    for user, events in zip(users, told, strict=True):
        places = [event["position"] for event in events[:-1]]
        assert places == sorted(places, reverse=True)
        assert (events[-1]["state"], events[-1]["user_id"]) == ("claimed", user)
        claim = events[-1]["outcome"]["claim"]
        async with client.get(f"{here}/api/claims/{claim['id']}") as response:
            assert await response.json() == claim
    starts = sorted(events[-1]["started_at"] for events in told)
    assert starts == [events[-1]["started_at"] for events in told], "first in, first out"
    async with client.get(f"{here}/api/coupons/mega") as response:
        coupon = await response.json()
    assert (coupon["remaining_amount"], coupon["claimed_count"], coupon["queue"]) == (
        0,
        12,
        {**MEGADEAL, "order": "fifo"},
    )
    status, problem, _ = await _claim(client, here, "late")
    assert (status, problem["type"]) == (409, "/problems/sold-out")


async def test_a_full_queue_takes_nobody_until_somebody_leaves(
    open_service: OpenService, client: aiohttp.ClientSession
) -> None:
    url = await open_service()
    await _coupon(client, url, 50, queue={**MEGADEAL, "max_length": 3})
    await _pause(client, url)
    answers = await asyncio.gather(*(_claim(client, url, f"user-{number}") for number in range(20)))
    tickets = sorted((body for status, body, _ in answers if status == 202), key=lambda each: each["position"])
    refused = [(status, body["type"], "Retry-After" in headers) for status, body, headers in answers if status != 202]
    assert [each["position"] for each in tickets] == [1, 2, 3]
    assert refused == [(429, "/problems/queue-full", True)] * 17
    for status in (204, 204):
        async with client.delete(f"{url}/api/tickets/{tickets[0]['id']}") as response:
            assert response.status == status
    assert [(await _read(client, url, each))["position"] for each in tickets] == [None, 1, 2]
    assert (await _read(client, url, tickets[0]))["state"] == "left"
    status, body, _ = await _claim(client, url, "next")
    assert (status, body["position"]) == (202, 3)
    await _pause(client, url, "resume")
    ended = await asyncio.gather(*(_follow(client, url, each) for each in (tickets[1], body)))
    assert [events[-1]["state"] for events in ended] == ["claimed", "claimed"]
    async with client.delete(f"{url}/api/tickets/{tickets[1]['id']}") as response:
        assert (response.status, (await response.json())["ticket"]["state"]) == (409, "claimed")


async def test_any_claim_can_wait_and_under_a_key_it_is_one_ticket(
    open_service: OpenService, client: aiohttp.ClientSession
) -> None:
    url = await open_service()
    await _coupon(client, url, 5, queue=None)
    headers = {"Prefer": "respond-async", "Idempotency-Key": "one"}
    status, ticket, told = await _claim(client, url, "ann", **headers)
    assert (status, told["Preference-Applied"]) == (202, "respond-async")
    ticket = (await _follow(client, url, ticket))[-1]
    assert (ticket["state"], ticket["outcome"]["claim"]["user_id"]) == ("claimed", "ann")
    status, again, told = await _claim(client, url, "ann", **headers)
    assert (status, again["id"], told["Idempotency-Replayed"]) == (202, ticket["id"], "true")
    status, problem, _ = await _claim(client, url, "ann", Prefer="respond-async")
    assert (status, problem["type"]) == (409, "/problems/already-claimed")
    assert (await _claim(client, url, "ben"))[0] == 201


async def test_the_page_of_a_ticket_follows_it(open_service: OpenService, client: aiohttp.ClientSession) -> None:
    url = await open_service()
    await _coupon(client, url, 5)
    await _pause(client, url)
    _, ticket, _ = await _claim(client, url, "somebody")
    async with client.get(f"{url}/queue/{ticket['id']}") as response:
        page = await response.text()
    assert "You are number 1 in the queue" in page
    assert "paused" in page
    assert "somebody" not in page
    await _pause(client, url, "resume")
    told = await _follow(client, url, ticket, "queue")
    assert (told[-1]["lines"][0], told[-1]["ended"]) == ("You have got one", True)
    assert "somebody" not in json.dumps(told)


async def test_who_waits_for_a_unit_that_comes_back_gets_it_held(
    open_service: OpenService, client: aiohttp.ClientSession
) -> None:
    url = await open_service()
    await _coupon(client, url, 1, queue=None, waiting_list=True)
    _, claim, _ = await _claim(client, url, "first")
    assert (await _claim(client, url, "second"))[0] == 409
    status, ticket, _ = await _claim(client, url, "second", Prefer="respond-async")
    assert (status, ticket["position"]) == (202, 1)
    assert (await _read(client, url, ticket))["stopped"] == "sold-out"
    following = asyncio.create_task(_follow(client, url, ticket))
    async with client.delete(f"{url}/api/claims/{claim['id']}") as response:
        assert response.status == 200
    last = (await asyncio.wait_for(following, 20))[-1]
    assert (last["state"], last["outcome"]["claim"]["state"]) == ("claimed", "held")
    async with client.get(f"{url}/queue/{ticket['id']}") as response:
        assert "One is held for you" in await response.text()
    async with client.post(f"{url}/api/claims/{last['outcome']['claim']['id']}/confirm") as response:
        assert (response.status, (await response.json())["user_id"]) == (200, "second")
