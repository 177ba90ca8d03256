"""Pages for operators: on a port of their own if there is one, and rendered without holding up claims."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from claimsvc.http.app import create_app, create_operators_app
from claimsvc.http.resources.operations.metrics_page import MetricsPage
from claimsvc.http.routes import OPERATORS_ROUTES, PUBLIC_ROUTES, ROUTES
from tests.http.memory_services import Observations, memory_services
from tests.support.memory_store import MemoryStore
from tests.support.raw_http import connected, request
from tests.support.serving import served


@pytest.fixture
async def ports() -> AsyncIterator[tuple[int, int]]:
    """The public port, and the one for operators."""
    app = create_app(memory_services(MemoryStore(), Observations()), operators_apart=True)
    async with served(app) as public, served(create_operators_app(app)) as operators:
        yield public, operators


async def status_of(port: int, method: str, target: str) -> int:
    async with aiohttp.ClientSession() as client, client.request(method, f"http://127.0.0.1:{port}{target}") as answer:
        await answer.read()
        return answer.status


OPERATORS = ["/metrics", "/console", "/console/main.js", "/readyz?verbose", "/readyz?verbose=1"]


@pytest.mark.parametrize("target", OPERATORS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_public_port_has_no_pages_for_operators(ports: tuple[int, int], method: str, target: str) -> None:
    public, operators = ports
    assert (await status_of(public, method, target), await status_of(operators, method, target)) == (404, 200)


@pytest.mark.parametrize("target", [b"/%6detrics", b"/./metrics", b"//metrics", b"/metrics/", b"/x/../metrics"])
async def test_no_other_spelling_reaches_them_either(ports: tuple[int, int], target: bytes) -> None:
    async with connected(ports[0]) as wire:
        await wire.send(request("GET", target, Connection="close"))
        assert [answer.status for answer in await wire.answers()] == [404]


async def test_the_port_for_operators_has_their_pages_and_probes_alone(ports: tuple[int, int]) -> None:
    assert {route.path for route in OPERATORS_ROUTES} == {
        *(
            "/",
            "/livez",
            "/health",
            "/healthcheck",
            "/readyz",
            "/metrics",
            "/console",
            "/console/events",
            "/console/{file}",
        ),
    }
    assert all(route in PUBLIC_ROUTES or route in OPERATORS_ROUTES for route in ROUTES)
    async with connected(ports[1]) as wire:
        for target in ("/api/coupons", "/docs", "/openapi.json"):
            await wire.send(request("GET", target))
            answer = await wire.answer()
            assert answer is not None
            assert answer.status == 404
    for port in ports:
        assert (await status_of(port, "GET", "/livez"), await status_of(port, "GET", "/readyz")) == (200, 200)


async def test_the_document_of_the_public_port_has_no_operations_for_operators(ports: tuple[int, int]) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{ports[0]}/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    assert "/metrics" not in paths
    assert "/readyz" in paths


class _Renderer:
    """Renders the number of its renderings, slowly."""

    def __init__(self) -> None:
        self.begun = 0
        self.threads: set[int] = set()

    def begin(self, _: str) -> Callable[[], tuple[bytes, str]]:
        self.begun += 1
        number = self.begun

        def render() -> tuple[bytes, str]:
            self.threads.add(threading.get_ident())
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
            return b"%d" % number, "text/plain"

        return render


async def test_metrics_are_rendered_in_a_thread_once_for_all_who_ask_and_rarely() -> None:
    renderer = _Renderer()
    page = MetricsPage(renderer.begin)
    started = time.monotonic()
    ticks = 0
    asking = asyncio.gather(*(page.render("") for _ in range(50)))
    while not asking.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert {content for content, _ in await asking} <= {b"1", b"2"}
    assert ticks > 10
    assert threading.get_ident() not in renderer.threads
    await page.render("")
    assert time.monotonic() - started > 0.05 * 9 * (renderer.begun - 1)


async def test_metrics_are_never_older_than_the_request() -> None:
    value, renderings = 0, []
    page = MetricsPage(lambda _: lambda value=value: (b"%d" % value, "text/plain"))  # type: ignore[misc]
    for value in range(1, 5):
        renderings.append((await page.render(""))[0])
        assert renderings[-1] == b"%d" % value
