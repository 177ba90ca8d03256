"""CORS: off unless origins are named; then for the API alone, on every path to an answer, and for no other origin."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from claimsvc.config import Settings
from claimsvc.config.checks import check_origins
from claimsvc.domain import StrategyName
from claimsvc.http.app import create_app
from claimsvc.http.server.cors import Cors
from tests.http.memory_services import Observations, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served

SHOP, OTHER = "https://shop.example", "https://shop.example.evil.example"
_CLAIM = {"user_id": "ann", "coupon_name": "plenty"}
# Every way to an answer: the fast path, aiohttp's, refusals, paths without a route, streams.
_ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fast path": ("POST", "/api/coupons/claim", {"json": _CLAIM}),
    "fast path refused": ("POST", "/api/coupons/claim", {"json": {"user_id": "ann"}}),
    "keyed": ("POST", "/api/coupons/claim", {"json": _CLAIM, "headers": {"Idempotency-Key": "k"}}),
    "list": ("GET", "/api/coupons?limit=1", {}),
    "head": ("HEAD", "/api/coupons", {}),
    "unauthorized": ("GET", "/api/audit", {}),
    "bad path": ("GET", "/api/coupons/a%2Fb", {}),
    "no route": ("GET", "/api/none", {}),
    "no method": ("PUT", "/api/coupons", {}),
    "stream": ("GET", "/api/coupons/plenty/claims/export", {"headers": ADMIN}),
    "explanation": ("GET", "/problems/sold-out", {}),
    "page of explanation": ("GET", "/problems/sold-out", {"headers": {"Accept": "text/html"}}),
}
_OPERATORS = ("/metrics", "/console", "/console/main.js", "/docs", "/openapi.json", "/livez", "/readyz")


@asynccontextmanager
async def service(*origins: str) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    store = MemoryStore()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    app = create_app(memory_services(store, Observations(), cors=Cors(origins) if origins else None))
    async with served(app) as port, aiohttp.ClientSession() as client:
        yield f"http://127.0.0.1:{port}", client


async def shared(
    client: aiohttp.ClientSession, method: str, url: str, origin: str | None = SHOP, **options: Any
) -> tuple[int, str | None, str | None, Mapping[str, str]]:
    given_headers = options.pop("headers", {})
    assert isinstance(given_headers, dict)
    headers = {**given_headers, **({"Origin": origin} if origin is not None else {})}
    async with client.request(method, url, headers=headers, **options) as response:
        await response.read()
        found = response.headers
        return response.status, found.get("Access-Control-Allow-Origin"), found.get("Vary"), found


async def preflight(client: aiohttp.ClientSession, url: str, origin: str = SHOP) -> tuple[int, Mapping[str, str]]:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}
    status, _, _, headers = await shared(client, "OPTIONS", url, origin, headers=asks)
    return status, headers


@pytest.mark.parametrize("asked", _ASKED)
async def test_every_answer_of_the_api_can_be_read_by_pages_of_the_origin_and_no_other(asked: str) -> None:
    method, path, options = _ASKED[asked]
    async with service(SHOP, "http://localhost:3000") as (url, client):
        _, allowed, vary, headers = await shared(client, method, url + path, **options)
        assert (allowed, vary) == (SHOP, "Origin")
        exposed = headers["Access-Control-Expose-Headers"].split(", ")
        assert {"X-Request-ID", "Location", "Retry-After", "RateLimit", "Link", "Idempotency-Replayed"} <= set(exposed)
        assert "Access-Control-Allow-Credentials" not in headers
        for origin in (OTHER, "null", "https://SHOP.example", f"{SHOP}/", "http://shop.example", None):
            assert (await shared(client, method, url + path, origin, **options))[1:3] == (None, "Origin")
    async with service("*") as (url, client):
        assert (await shared(client, method, url + path, OTHER, **options))[1:3] == ("*", None)
    async with service() as (url, client):
        _, allowed, vary, headers = await shared(client, method, url + path, **options)
        assert (allowed, vary) == (None, None)
        assert not [name for name in headers if name.lower().startswith("access-control-")]


async def test_a_preflight_is_answered_with_what_may_be_sent() -> None:
    async with service(SHOP) as (url, client):
        for path in ("/api/coupons/claim", "/api/coupons", "/api/claims/1", "/api/none"):
            status, headers = await preflight(client, url + path)
            assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (204, SHOP, "Origin")
            assert {"POST", "PATCH", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
            allowed = {name.lower() for name in headers["Access-Control-Allow-Headers"].split(", ")}
            assert {"authorization", "idempotency-key", "content-type", "x-request-id", "prefer"} <= allowed
            assert int(headers["Access-Control-Max-Age"]) > 0
            assert headers["X-Request-ID"]


@pytest.mark.parametrize("origins", [(), (SHOP,)])
async def test_other_preflights_and_options_are_answered_as_without_cors(origins: tuple[str, ...]) -> None:
    async with service(*origins) as (url, client):
        assert (await preflight(client, f"{url}/api/coupons", OTHER))[0] == 405
        assert (await shared(client, "OPTIONS", f"{url}/api/coupons"))[0] == 405
        assert (await preflight(client, f"{url}/metrics"))[0] == 405


@pytest.mark.parametrize("origins", [(SHOP,), ("*",)])
async def test_what_is_for_operators_is_never_shared(origins: tuple[str, ...]) -> None:
    async with service(*origins) as (url, client):
        for path in _OPERATORS:
            status, allowed, _, _ = await shared(client, "GET", url + path)
            assert (status, allowed) == (200, None), path
            assert (await preflight(client, url + path))[0] == 405


async def test_many_claims_on_one_connection_each_have_the_headers_of_their_own_origin() -> None:
    async with service(SHOP, "http://a.example") as (url, client):
        found = await asyncio.gather(
            *(
                shared(client, "POST", f"{url}/api/coupons/claim", origin, json={**_CLAIM, "user_id": f"u{number}"})
                for number, origin in enumerate([SHOP, "http://a.example", OTHER] * 10)
            )
        )
    assert [allowed for _, allowed, _, _ in found] == [SHOP, "http://a.example", None] * 10


@pytest.mark.parametrize(
    "origin",
    [
        *("https://shop.example/", "HTTPS://shop.example", "shop.example", "https://a b", "null", "ftp://a"),
        *("https://shop.example:443", "http://shop.example:80", "https://*.example", "https://a:99999999"),
        *("https://a@b", "https://a?b", "https://a#", "https://"),
    ],
)
def test_what_no_browser_sends_is_a_wrong_setting(origin: str) -> None:
    with pytest.raises(ValueError, match="each must look like"):
        check_origins((origin,))


def test_origins_are_read_from_the_setting() -> None:
    urls = {"database_url": "postgresql://a:b@c/d", "redis_urls": "redis://a"}
    found = Settings(**urls, cors_origins="https://shop.example, http://[::1]:3000,http://localhost:8000")
    assert found.cors_origins == ("https://shop.example", "http://[::1]:3000", "http://localhost:8000")


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_other_text_is_taken_for_an_origin(text: str) -> None:
    found = Cors((SHOP,)).headers(CIMultiDictProxy(CIMultiDict({"Origin": text})))
    assert ("Access-Control-Allow-Origin" in found) == (text == SHOP)
