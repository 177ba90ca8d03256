"""What the service answers to those who keep to the contract, and to the failures behind it."""

import asyncio
from datetime import datetime
from typing import Any

import aiohttp
import pytest
import structlog
from uuid_utils.compat import uuid7

from claimsvc.api import create_app
from claimsvc.domain import StrategyName
from claimsvc.errors import InvariantViolatedError, LockBusyError, UnavailableError
from tests.api.memory import ADMIN, MemoryStore, Observations, Service, memory_services, served


async def claim(service: Service, coupon: str = "plenty", user: str = "ann") -> tuple[int, Any, Any]:
    body = {"user_id": user, "coupon_name": coupon}
    async with service.client.post(f"{service.url}/api/coupons/claim", json=body) as response:
        return response.status, await response.json(content_type=None), response.headers


async def get(service: Service, path: str, **options: Any) -> tuple[int, Any, Any]:
    async with service.client.get(service.url + path, **options) as response:
        return response.status, await response.json(content_type=None), response.headers


async def create(service: Service, body: Any, headers: dict[str, str] = ADMIN) -> tuple[int, Any, Any]:
    async with service.client.post(f"{service.url}/api/coupons", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None), response.headers


async def test_a_claim_is_answered_with_itself_and_its_place(service: Service) -> None:
    status, body, headers = await claim(service)
    assert status == 201
    assert body.keys() == {"id", "coupon_name", "user_id", "state", "claimed_at"}
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


@pytest.mark.parametrize("failure", [InvariantViolatedError("secret SQL"), RuntimeError("secret SQL"), TimeoutError()])
async def test_a_defect_is_told_to_the_log_alone(service: Service, failure: Exception) -> None:
    service.store.failure = failure
    status, problem, headers = await claim(service)
    assert (status, problem["type"]) == (500, "/problems/internal-error")
    assert "secret" not in str(problem) + str(headers)
    (line,) = service.lines
    assert line["log_level"] == "error"
    assert line["exc_info"] is failure
    assert line["request_id"] == problem["request_id"] == headers["X-Request-ID"]


async def test_a_coupon_is_created_and_found(service: Service) -> None:
    status, body, headers = await create(service, {"name": "new.one", "amount": 3})
    assert (status, body["name"], body["amount"], body["remaining_amount"]) == (201, "new.one", 3, 3)
    await claim(service, "new.one", "bob")
    await claim(service, "new.one", "ann")
    status, body, _ = await get(service, headers["Location"])
    assert (status, body["remaining_amount"], body["claimed_by"]) == (200, 1, ["bob", "ann"])


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
            assert "CLAIMSVC_ADMIN_KEYS" in (await response.json(content_type=None))["detail"]


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


async def test_unknown_things_are_not_found(service: Service) -> None:
    for path, slug in (
        (f"/api/claims/{uuid7()}", "unknown-claim"),
        ("/api/coupons/no-such", "unknown-coupon"),
        ("/no/such/path", "not-found"),
        ("/api/coupons/", "not-found"),
        ("/", "not-found"),
    ):
        status, problem, headers = await get(service, path)
        assert (status, problem["type"]) == (404, f"/problems/{slug}")
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["X-Request-ID"] == problem["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/coupons/plenty", "GET, HEAD"),
        ("PUT", "/api/coupons/claim", "GET, HEAD, POST"),
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


async def test_one_request_is_one_line_and_one_count(service: Service) -> None:
    await get(service, "/api/coupons/plenty?limit=secret", headers={"X-Request-ID": "mine-2"})
    (line,) = service.lines
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "path": "/api/coupons/plenty",
        "route": "/api/coupons/{name}",
        "status": 200,
        "duration_ms": line["duration_ms"],
        "request_id": "mine-2",
        "remote": "127.0.0.1",
    }
    assert service.observations.seen == [("GET", "/api/coupons/{name}", 200)]


async def test_under_load_the_lines_of_what_went_well_are_a_sample_that_says_of_how_many(
    log_lines: list[structlog.typing.EventDict],
) -> None:
    store, observations = MemoryStore(), Observations()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    app = create_app(memory_services(store, observations, log_requests_per_second=3))
    async with served(app) as port, aiohttp.ClientSession() as client:
        service = Service(f"http://127.0.0.1:{port}", port, store, observations, client, log_lines)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n" * 499 + b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        await reader.read()
        writer.close()
        store.failure = UnavailableError("gone", dependency="postgresql")
        for number in range(10):
            await claim(service, user=f"user-{number}")
        store.failure = RuntimeError("a defect")
        await claim(service)
    went_well = [line for line in log_lines if line["log_level"] == "info"]
    # Each stands for as many as it says, but for the last few of each second.
    stood_for = sum(1 / line.get("sample_rate", 1) for line in went_well)
    assert len(went_well) < 50
    assert 200 < stood_for <= 500
    assert {line.get("sample_rate") for line in went_well} == {None, 0.01}
    went_wrong = [(line["log_level"], line["status"]) for line in log_lines if line["log_level"] != "info"]
    assert went_wrong == [("warning", 503)] * 10 + [("error", 500)]
    assert len(observations.seen) == 511


async def test_the_line_of_a_claim_says_what_it_came_to(service: Service) -> None:
    await claim(service, "last", "ann")
    await claim(service, "last", "ann")
    await claim(service, "last", "bob")
    await claim(service, "nothing", "bob")
    service.store.failure = LockBusyError("busy")
    await claim(service, "last", "cleo")
    assert [(line["coupon"], line["outcome"]) for line in service.lines] == [
        ("last", "claimed"),
        ("last", "already-claimed"),
        ("last", "sold-out"),
        ("nothing", "unknown-coupon"),
        ("last", "lock-busy"),
    ]


async def test_no_line_is_made_that_nobody_reads(service: Service) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    try:
        await get(service, "/livez")
    finally:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    assert service.lines == []


async def test_ready_tells_what_is_down_to_those_who_ask() -> None:
    asked = 0

    async def down() -> None:
        nonlocal asked
        asked += 1
        raise UnavailableError("2 of 3 masters do not answer", dependency="redis")

    async def broken() -> None:
        raise RuntimeError("secret")

    async def fine() -> None: ...

    checks = {"redis": down, "postgresql": fine, "odd": broken}
    app = create_app(memory_services(MemoryStore(), Observations(), health_checks=checks))
    async with served(app) as port, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{port}"
        answers = await asyncio.gather(*(client.get(f"{url}/readyz") for _ in range(5)))
        assert [each.status for each in answers] == [503] * 5
        assert asked == 1, "probes share one result"
        problem = await answers[0].json(content_type=None)
        assert (problem["type"], problem["checks"]) == ("/problems/unavailable", {})
        assert int(answers[0].headers["Retry-After"]) >= 1
        async with client.get(f"{url}/readyz?verbose") as response:
            verbose = await response.json(content_type=None)
        assert verbose["checks"]["redis"] == {"status": "down", "detail": "2 of 3 masters do not answer"}
        assert verbose["checks"]["postgresql"]["status"] == "ok"
        assert verbose["checks"]["odd"]["status"] == "down"
        assert "secret" not in str(verbose)
        async with client.get(f"{url}/livez") as response:
            assert response.status == 200, "alive whatever its dependencies are"


async def test_ready_when_everything_is(service: Service) -> None:
    assert (await get(service, "/readyz"))[:2] == (200, {"status": "ok", "checks": {}})
    status, body, _ = await get(service, "/readyz?verbose")
    assert (status, body["checks"]) == (200, {"postgresql": {"status": "ok", "detail": ""}})


async def test_metrics_are_what_is_rendered(service: Service) -> None:
    async with service.client.get(f"{service.url}/metrics") as response:
        assert response.content_type == "text/plain"
        assert await response.read() == b"claimsvc_up 1\n"


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
