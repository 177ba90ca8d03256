"""What load balancers and Prometheus are told."""

import asyncio

import aiohttp

from claimsvc.application.readiness import Readiness
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_app
from tests.http.asking import get
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.memory_store import MemoryStore
from tests.support.serving import served


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
    app = create_app(memory_services(MemoryStore(), Observations(), readiness=Readiness(checks)))
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


async def test_clients_of_other_services_may_ask_elsewhere_whether_it_is_alive(service: Service) -> None:
    service.store.failure = UnavailableError("gone", dependency="postgresql")
    for path in ("/livez", "/health", "/healthcheck"):
        assert (await get(service, path))[:2] == (200, {"status": "ok"})
        async with service.client.head(service.url + path) as response:
            assert response.status == 200
