"""Coupons over HTTP: made by whoever has a key, found and listed by everybody."""

from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
import pytest

from claimsvc.application import coupons
from claimsvc.domain import Campaign, StrategyName
from claimsvc.http.app import create_app
from tests.http.asking import claim, create, get
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served


async def test_a_coupon_is_created_and_found(service: Service) -> None:
    status, body, headers = await create(service, {"name": "new.one", "amount": 3})
    assert (status, body["name"], body["amount"], body["remaining_amount"]) == (201, "new.one", 3, 3)
    await claim(service, "new.one", "bob")
    await claim(service, "new.one", "ann")
    status, body, _ = await get(service, headers["Location"])
    assert (status, body["remaining_amount"], body["claimed_by"]) == (200, 1, ["bob", "ann"])


async def test_a_coupon_whose_claimants_are_cut_says_how_many_there_are_and_where(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupons, "MAX_CLAIMANTS", 2)
    for count, user in enumerate(("ann", "bob", "cleo"), start=1):
        await claim(service, "plenty", user)
        _, body, _ = await get(service, "/api/coupons/plenty")
        assert (body["claimed_by"], body["claimed_count"]) == (["ann", "bob", "cleo"][: min(count, 2)], count)
    _, page, _ = await get(service, body["claims"])
    assert [each["user_id"] for each in page["items"]] == ["ann", "bob", "cleo"]


async def test_a_coupon_is_created_once(service: Service) -> None:
    status, problem, _ = await create(service, {"name": "plenty", "amount": 3})
    assert (status, problem["type"]) == (409, "/problems/coupon-exists")


async def test_a_coupon_may_be_named_claim(service: Service) -> None:
    await create(service, {"name": "claim", "amount": 1})
    status, body, _ = await get(service, "/api/coupons/claim")
    assert (status, body["name"]) == (200, "claim")
    assert (await claim(service, "claim"))[0] == 201


async def test_a_whole_number_may_be_written_with_a_point(service: Service) -> None:
    """JSON Schema knows one kind of number: 5.0 is the integer 5."""
    status, body, _ = await create(service, {"name": "five", "amount": 5.0})
    assert (status, body["amount"]) == (201, 5)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic an-admin-key", "an-admin-key", "Bearer an-admin-key2"],
)
async def test_creating_a_coupon_needs_an_admin_key(service: Service, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    # The body is wrong too: who asks is settled first.
    status, problem, answered = await create(service, {"nonsense": 1}, headers)
    assert (status, problem["type"]) == (401, "/problems/unauthorized")
    assert answered["WWW-Authenticate"] == "Bearer"
    assert await service.is_healthy()


async def test_without_a_key_set_up_nobody_creates_coupons() -> None:
    app = create_app(memory_services(MemoryStore(), Observations(), admin_key_digests=()))
    async with served(app) as port, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{port}/api/coupons"
        async with client.post(url, json={"name": "a", "amount": 1}, headers=ADMIN) as response:
            assert response.status == 401
            assert "claimsvc key create" in (await response.json(content_type=None))["detail"]


async def test_coupons_are_listed_page_by_page(service: Service) -> None:
    names = sorted([*(f"sale-{number}" for number in range(7)), "last", "plenty"])
    for name in names:
        await service.store.create_coupon(name, 1, StrategyName.REDLOCK)
    seen: list[str] = []
    path: str | None = "/api/coupons?limit=4"
    while path is not None:
        status, page, headers = await get(service, path)
        assert status == 200
        seen += [coupon["name"] for coupon in page["items"]]
        link = headers.get("Link")
        path = link[1:].partition(">")[0] if link else None
        assert (path is None) == (page["next_cursor"] is None)
    assert seen == names
    _, page, _ = await get(service, "/api/coupons?search=ALE-1")
    assert [coupon["name"] for coupon in page["items"]] == ["sale-1"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["last", "none-left", "other", "plenty", "still"]),
        ({"state": "open"}, ["last", "other", "plenty"]),
        ({"state": "paused,sold-out"}, ["none-left", "still"]),
        ({"state": "archived"}, ["gone"]),
        ({"state": "archived,open"}, ["gone", "last", "other", "plenty"]),
        ({"type": "welcome"}, ["none-left", "still"]),
        ({"type": ""}, ["last", "other", "plenty"]),
        ({"type": "welcome", "state": "archived"}, ["gone"]),
        ({"type": "welcome", "search": "STIL"}, ["still"]),
        ({"type": "unknown"}, []),
    ],
)
async def test_coupons_are_listed_by_type_and_state(service: Service, query: dict[str, str], names: list[str]) -> None:
    welcome = Campaign(type="welcome", benefit={"percent_off": 5})
    for name, campaign in (
        ("other", Campaign()),
        ("still", replace(welcome, paused=True)),
        ("none-left", welcome),
        ("gone", replace(welcome, archived_at=datetime(2026, 1, 1, tzinfo=UTC))),
    ):
        await service.store.create_coupon(name, 1, StrategyName.REDLOCK, campaign)
    await claim(service, "none-left", "ann")
    found: list[str] = []
    asked = {**query, "limit": "2"}
    while True:
        status, page, _ = await get(service, "/api/coupons", params=asked)
        assert status == 200
        found += [each["name"] for each in page["items"]]
        for each in page["items"]:
            typed = each["name"] in {"still", "none-left", "gone"}
            assert (each["type"], each["benefit"]) == (("welcome", {"percent_off": 5}) if typed else (None, None))
        if page["next_cursor"] is None:
            break
        asked["cursor"] = page["next_cursor"]
    assert found == names


@pytest.mark.parametrize("query", [{"state": "Open"}, {"state": "open,"}, {"state": "sold_out"}, {"type": "a,b"}])
async def test_a_filter_that_is_not_understood_is_refused(service: Service, query: dict[str, str]) -> None:
    status, problem, _ = await get(service, "/api/coupons", params=query)
    assert (status, problem["errors"][0]["parameter"]) == (400, next(iter(query)))


async def test_claims_are_listed_page_by_page(service: Service) -> None:
    users = [f"user-{number}" for number in range(5)]
    for user in users:
        await claim(service, "plenty", user)
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        _, page, _ = await get(service, "/api/coupons/plenty/claims", params=query)
        seen += [each["user_id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == users
    status, problem, _ = await get(service, "/api/coupons/no-such/claims")
    assert (status, problem["type"]) == (404, "/problems/unknown-coupon")


MEGADEAL = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100}


async def test_a_coupon_has_a_queue_until_it_is_removed(service: Service) -> None:
    shown = {**MEGADEAL, "order": "fifo"}
    status, body, headers = await create(service, {"name": "mega", "amount": 100, "queue": MEGADEAL})
    assert (status, body["queue"]) == (201, shown)
    assert (await get(service, headers["Location"]))[1]["queue"] == shown
    url = service.url + headers["Location"]
    for sent, expected in (
        ({"paused": False}, shown),
        ({"queue": {**shown, "max_length": 7}}, {**shown, "max_length": 7}),
    ):
        async with service.client.patch(url, json=sent, headers=ADMIN) as response:
            assert (response.status, (await response.json())["queue"]) == (200, expected)
    async with service.client.patch(url, json={"queue": None}, headers=ADMIN) as response:
        assert (await response.json())["queue"] is None
    assert (await get(service, headers["Location"]))[1]["queue"] is None


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *((member, value) for member in MEGADEAL for value in (0, -1, 1.5, "10", True, None)),
        ("rate_per_second", 1001),
        ("concurrency", 1001),
        ("max_wait_seconds", 86_401),
        ("max_length", 1_000_001),
        ("order", "lifo"),
        ("pace", 10),
    ],
)
async def test_a_queue_that_is_not_one_is_refused_at_its_place(service: Service, member: str, value: object) -> None:
    status, problem, _ = await create(service, {"name": "mega", "amount": 1, "queue": {**MEGADEAL, member: value}})
    assert (status, problem["errors"][0]["pointer"]) == (400, f"#/queue/{member}")
