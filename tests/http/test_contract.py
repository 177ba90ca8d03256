"""What the service answers to those who claim, and to whatever else is asked of it."""

import asyncio
from datetime import datetime
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from claimsvc.errors import LockBusyError, UnavailableError
from tests.http.asking import claim, get
from tests.http.memory_services import Service


async def test_a_claim_is_answered_with_itself_and_its_place(service: Service) -> None:
    status, body, headers = await claim(service)
    assert status == 201
    assert body.keys() == {"id", "coupon_name", "user_id", "state", "claimed_at", "expires_at", "ended_at", "code"}
    assert (body["coupon_name"], body["user_id"], body["state"]) == ("plenty", "ann", "active")
    assert datetime.fromisoformat(body["claimed_at"]).tzinfo is not None
    assert headers["Location"] == f"/api/claims/{body['id']}"
    found, same, _ = await get(service, headers["Location"])
    assert (found, same) == (200, body)


async def test_a_second_claim_is_refused_with_the_first(service: Service) -> None:
    _, first, _ = await claim(service)
    status, problem, headers = await claim(service)
    assert status == 409
    assert problem["type"] == "/problems/already-claimed"
    assert problem["claim"] == first
    assert headers.getone("Content-Type") == "application/problem+json"


async def test_a_claim_of_a_coupon_without_stock_is_sold_out(service: Service) -> None:
    await claim(service, "last", "ann")
    status, problem, _ = await claim(service, "last", "bob")
    assert (status, problem["type"]) == (409, "/problems/sold-out")


async def test_a_claim_of_an_unknown_coupon_is_not_found(service: Service) -> None:
    status, problem, _ = await claim(service, "no-such")
    assert (status, problem["type"]) == (404, "/problems/unknown-coupon")


@pytest.mark.parametrize(
    ("failure", "slug", "retry_after"),
    [
        (LockBusyError("the lock was held throughout", retry_after_seconds=0.2), "lock-busy", "1"),
        (UnavailableError("no answer", dependency="redis", retry_after_seconds=1.5), "unavailable", "2"),
    ],
)
async def test_a_claim_that_could_not_be_decided_may_be_tried_again(
    service: Service, failure: Exception, slug: str, retry_after: str
) -> None:
    service.store.failure = failure
    status, problem, headers = await claim(service)
    assert (status, problem["type"]) == (503, f"/problems/{slug}")
    assert headers["Retry-After"] == retry_after


async def test_unknown_things_are_not_found(service: Service) -> None:
    for path, slug in (
        (f"/api/claims/{uuid7()}", "unknown-claim"),
        ("/api/coupons/no-such", "unknown-coupon"),
        ("/no/such/path", "not-found"),
        ("/api/coupons/", "not-found"),
        ("/none", "not-found"),
    ):
        status, problem, headers = await get(service, path)
        assert (status, problem["type"]) == (404, f"/problems/{slug}")
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["X-Request-ID"] == problem["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/coupons/plenty", "GET, HEAD, PATCH"),
        ("PUT", "/api/coupons/claim", "GET, HEAD, PATCH, POST"),
        ("OPTIONS", "/api/coupons", "GET, HEAD, POST"),
        ("PATCH", "/api/coupons", "GET, HEAD, POST"),
        ("POST", "/livez", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_lacks_is_refused_with_those_it_has(
    service: Service, method: str, path: str, allowed: str
) -> None:
    async with service.client.request(method, service.url + path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == allowed
        assert response.content_type == "application/problem+json"
        assert (await response.json(content_type=None))["type"] == "/problems/method-not-allowed"
    assert await service.is_healthy()


@pytest.mark.parametrize(
    ("query", "options", "reason"),
    [
        ("", {}, ""),
        ("", {"headers": {"Content-Type": "application/json"}}, ""),
        ("", {"json": {"reason": "by mistake"}}, "by mistake"),
        ("?reason=by+mistake", {}, "by mistake"),
        ("?reason=", {}, ""),
        ("", {"json": {"reason": ""}}, ""),
    ],
)
async def test_a_claim_is_cancelled_with_or_without_a_body(
    service: Service, query: str, options: dict[str, Any], reason: str
) -> None:
    _, made, _ = await claim(service)
    async with service.client.delete(f"{service.url}/api/claims/{made['id']}{query}", **options) as response:
        assert (response.status, (await response.json())["state"]) == (200, "cancelled")
    assert [entry.reason for entry in service.store.entries_kept] == [reason]


async def test_head_is_get_without_the_body(service: Service) -> None:
    async with service.client.head(f"{service.url}/api/coupons/plenty") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


async def test_every_answer_has_a_request_id_and_is_not_stored(service: Service) -> None:
    _, _, made = await get(service, "/livez")
    _, _, kept = await get(service, "/livez", headers={"X-Request-ID": "mine-1"})
    _, _, replaced = await get(service, "/livez", headers={"X-Request-ID": "not mine"})
    assert kept["X-Request-ID"] == "mine-1"
    assert len({made["X-Request-ID"], kept["X-Request-ID"], replaced["X-Request-ID"]}) == 3
    assert replaced["X-Request-ID"] != "not mine"
    assert made["Cache-Control"] == "no-store"
    assert made["X-Content-Type-Options"] == "nosniff"
    assert made["Server"] == "claimsvc"


async def test_a_claim_outlives_the_client_that_hangs_up(service: Service) -> None:
    """The client aborts while its claim is being decided; the claim completes and the service goes on."""
    going, go_on = asyncio.Event(), asyncio.Event()
    decide = service.store.claim_unit

    async def slowly(coupon_name: str, user_id: str) -> Any:
        going.set()
        await go_on.wait()
        return await decide(coupon_name, user_id)

    service.store.claim_unit = slowly  # type: ignore[method-assign]
    request = asyncio.create_task(claim(service, "plenty", "gone"))
    await going.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    go_on.set()
    assert await service.is_healthy()
    detail = await service.store.coupon("plenty", claimants=10)
    assert detail is not None
    assert "gone" in detail.claimed_by
