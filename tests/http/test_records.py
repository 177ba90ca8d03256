"""What is kept of each request: a count, and a line in the log that tells what it came to."""

import asyncio

import aiohttp
import pytest
import structlog

from claimsvc.domain import StrategyName
from claimsvc.errors import InvariantViolatedError, LockBusyError, UnavailableError
from claimsvc.http.app import create_app
from tests.http.asking import claim, get
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served


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


async def test_one_request_is_one_line_and_one_count(service: Service) -> None:
    await get(service, "/api/coupons?search=secret", headers={"X-Request-ID": "mine-2"})
    (line,) = service.lines
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "path": "/api/coupons",
        "route": "/api/coupons",
        "status": 200,
        "duration_ms": line["duration_ms"],
        "request_id": "mine-2",
        "remote": "127.0.0.1",
    }
    assert service.observations.seen == [("GET", "/api/coupons", 200)]


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


async def test_no_code_is_in_the_log(service: Service) -> None:
    for path in ("/api/codes/HKTA-2947", "/api/%63odes/HKTA-2947", "/api/codes/HKTA-2947/other"):
        async with service.client.get(service.url + path, headers=ADMIN) as response:
            assert response.status == 404
    assert [line["path"] for line in service.lines] == ["/api/codes/{code}", "/api/codes/{code}", "/api/codes/..."]


async def test_whose_claims_are_listed_is_not_in_the_log(service: Service) -> None:
    for path in ("/api/users/ada/claims", "/api/users/%61da/claims?cursor=ada"):
        async with service.client.get(service.url + path) as response:
            assert response.status in (200, 400)
    assert [line["path"] for line in service.lines] == ["/api/users/{user_id}/claims"] * 2
    assert "ada" not in str(service.lines)


async def test_who_is_to_be_forgotten_is_not_in_the_log(service: Service) -> None:
    for path in ("/api/users/ada", "/api/users/%61da", "/api/users/ada/other"):
        async with service.client.delete(service.url + path, headers=ADMIN) as response:
            assert response.status in (200, 404)
    assert [(line["path"], line["status"]) for line in service.lines] == [
        ("/api/users/{id}", 200),
        ("/api/users/{id}", 200),
        ("/api/users/...", 404),
    ]
    assert "ada" not in str(service.lines)
