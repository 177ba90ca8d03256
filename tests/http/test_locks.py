"""The locks as an operator sees and opens them over HTTP: the contract, and the real thing."""

import asyncio
from typing import Any

import aiohttp
import pytest

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_app
from tests.http.memory_services import MemoryLockAdmin, Observations, Service, memory_services
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.audit import trail
from tests.support.locks import open_lock
from tests.support.memory_store import MemoryStore
from tests.support.serving import served

REASON = {"reason": "its instance hangs"}


async def ask(url: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as client, client.request(method, url + path, **options) as response:
        return response.status, await response.json(content_type=None)


async def test_locks_are_listed_with_holder_waiting_instances_and_masters(service: Service) -> None:
    assert await ask(service.url, "GET", "/api/locks", headers=ADMIN) == (
        200,
        {
            "items": [
                {
                    "coupon_name": "plenty",
                    "holder": "web-1",
                    "held": True,
                    "held_seconds": 0.003,
                    "masters": [{"master": "a:1", "ttl_seconds": 19.9}, {"master": "b:1", "ttl_seconds": 19.8}],
                    "turn": None,
                    "waiting": [{"instance": "web-2", "seconds": 0.25}],
                }
            ],
            "complete": True,
            "masters": {"a:1": "up", "b:1": "up", "c:1": "down"},
        },
    )


async def test_a_lock_is_released_once_in_the_name_of_the_key(service: Service) -> None:
    options = {"headers": {**ADMIN, "X-Request-ID": "mine"}, "json": REASON}
    status, body = await ask(service.url, "DELETE", "/api/locks/plenty", **options)
    assert (status, body) == (
        200,
        {
            "coupon_name": "plenty",
            "holders": ["web-1"],
            "released_on": ["a:1", "b:1"],
            "not_reached": ["c:1"],
            "woke_another": True,
        },
    )
    status, problem = await ask(service.url, "DELETE", "/api/locks/plenty", **options)
    assert (status, problem["type"]) == (404, "/problems/lock-not-held")


@pytest.mark.parametrize(
    ("path", "options", "reason"),
    [
        ("/api/locks/plenty", {}, ""),
        ("/api/locks/plenty", {"headers": {"Content-Type": "application/json"}}, ""),
        ("/api/locks/plenty", {"json": {}}, ""),
        ("/api/locks/plenty?reason=", {}, ""),
        ("/api/locks/plenty", {"json": {"reason": ""}}, ""),
        ("/api/locks/plenty?reason=its%20instance%20hangs", {"json": {"reason": ""}}, "its instance hangs"),
        ("/api/locks/plenty?reason=", {"json": REASON}, "its instance hangs"),
        ("/api/locks/plenty?reason=its%20instance%20hangs", {}, "its instance hangs"),
        ("/api/locks/plenty", {"json": REASON}, "its instance hangs"),
        ("/api/locks/plenty?reason=another", {"json": REASON}, "its instance hangs"),
        ("/api/locks/plenty?reason=its%20instance%20hangs", {"json": {}}, "its instance hangs"),
    ],
)
async def test_a_lock_is_released_with_a_reason_in_the_query_or_the_body_or_without_one(
    path: str, options: dict[str, Any], reason: str
) -> None:
    lock_admin = MemoryLockAdmin()
    app = create_app(memory_services(MemoryStore(), Observations(), lock_admin=lock_admin))
    headers = {**ADMIN, **options.get("headers", {})}
    async with served(app) as port:
        status, _ = await ask(f"http://127.0.0.1:{port}", "DELETE", path, **{**options, "headers": headers})
    assert status == 200
    assert [released[2] for released in lock_admin.released] == [reason]


async def test_a_lock_of_no_coupon_or_with_a_bad_reason_is_not_released(service: Service) -> None:
    status, problem = await ask(service.url, "DELETE", "/api/locks/none", headers=ADMIN, json=REASON)
    assert (status, problem["type"]) == (404, "/problems/lock-not-held")
    unclear: list[tuple[str, dict[str, Any], int]] = [
        ("", {"json": {"reason": " "}}, 400),
        ("", {"json": {"reason": "\u200b"}}, 400),
        ("", {"json": {"reason": "a\nb"}}, 400),
        ("", {"json": {"reason": None}}, 400),
        ("", {"data": "its instance hangs"}, 415),
        ("?reason=%20", {}, 400),
        ("?reason=a%0Ab", {}, 400),
        ("?reason=one&reason=two", {}, 400),
        ("?raison=one", {}, 400),
    ]
    slugs = {400: "/problems/bad-request", 415: "/problems/unsupported-media-type"}
    for query, options, expected in unclear:
        status, problem = await ask(service.url, "DELETE", f"/api/locks/plenty{query}", headers=ADMIN, **options)
        assert (status, problem["type"]) == (expected, slugs[expected]), (query, options)
    assert (await ask(service.url, "GET", "/api/locks", headers=ADMIN))[1]["items"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/locks"), ("DELETE", "/api/locks/plenty")])
async def test_without_a_key_nobody_sees_or_opens_a_lock(service: Service, method: str, path: str) -> None:
    status, problem = await ask(service.url, method, path, json=REASON)
    assert (status, problem["type"]) == (401, "/problems/unauthorized")


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/locks"), ("DELETE", "/api/locks/plenty")])
async def test_without_a_majority_of_masters_or_postgresql_it_may_be_tried_again(method: str, path: str) -> None:
    lock_admin = MemoryLockAdmin()
    lock_admin.failure = UnavailableError("a majority of the lock's masters does not answer", dependency="redis")
    app = create_app(memory_services(MemoryStore(), Observations(), lock_admin=lock_admin))
    async with served(app) as port:
        status, problem = await ask(f"http://127.0.0.1:{port}", method, path, headers=ADMIN, json=REASON)
    assert (status, problem["type"]) == (503, "/problems/unavailable")


async def test_the_service_releases_a_lock_that_another_instance_holds(
    redis_urls: tuple[str, ...], database_url: str
) -> None:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))
    async with (
        open_lock(redis_urls) as (lock, observed),
        application(settings) as app,
        served(app, header_timeout_seconds=10) as port,
    ):
        url = f"http://127.0.0.1:{port}"
        await ask(url, "POST", "/api/coupons", headers=ADMIN, json={"name": "spring", "amount": 1})
        async with lock.hold("spring"):
            claim = {"coupon_name": "spring", "user_id": "ann"}
            claiming = asyncio.create_task(ask(url, "POST", "/api/coupons/claim", json=claim))
            while not (held := (await ask(url, "GET", "/api/locks", headers=ADMIN))[1]["items"])[0]["waiting"]:
                await asyncio.sleep(0.005)
            headers = {**ADMIN, "X-Request-ID": "mine"}
            status, released = await ask(url, "DELETE", "/api/locks/spring", headers=headers, json=REASON)
            # The claim that waited gets the lock, and its unit, while the old holder still believes in its own.
            assert (await claiming)[0] == 201
        assert (status, released["woke_another"], len(released["released_on"])) == (200, True, 3)
        assert released["holders"] == [held[0]["holder"]]
        assert observed.lost_locks == 1
    [entry, _] = await trail(database_url)
    assert (entry.actor, entry.reason, entry.request_id) == (
        f"admin-key:{ADMIN_DIGEST[:12]}",
        REASON["reason"],
        "mine",
    )
