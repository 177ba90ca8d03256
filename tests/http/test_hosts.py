"""Requests that change something are for this service's own hosts and pages, so that DNS rebinding leads nowhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from claimsvc.config import Settings
from claimsvc.config.checks import check_hosts
from claimsvc.domain import StrategyName
from claimsvc.http.app import create_app
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.hosts import AllowedHosts
from tests.http.memory_services import Observations, memory_services
from tests.support.admin import ADMIN_KEY
from tests.support.memory_store import MemoryStore
from tests.support.serving import served

PORT = 8080
_KEY = f"Authorization: Bearer {ADMIN_KEY}"
_CHANGES = [
    ("POST", "/api/coupons/claim", {"user_id": "ann", "coupon_name": "plenty"}, ()),
    ("POST", "/api/coupons/claim", {"user_id": "ann", "coupon_name": "plenty"}, ("Idempotency-Key: k",)),
    ("POST", "/api/coupons", {"name": "new", "amount": 1}, (_KEY,)),
    ("PATCH", "/api/coupons/plenty", {"amount": 2000}, (_KEY,)),
    ("POST", "/api/coupons/plenty/archive", None, (_KEY,)),
    ("DELETE", "/api/users/ann", None, (_KEY,)),
    ("POST", "/console/stress-test", {"scenario": "flash-sale"}, ()),
]


class StressTests:
    """Counts what is started."""

    scenarios: Collection[str] = ("flash-sale",)

    def __init__(self) -> None:
        self.started = 0

    def start(self, scenario: str) -> bool:
        self.started += 1
        return True


@asynccontextmanager
async def service(hosts: AllowedHosts | None, **more: Any) -> AsyncIterator[tuple[int, MemoryStore, StressTests]]:
    store, stress = MemoryStore(), StressTests()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    app = create_app(memory_services(store, Observations(), hosts=hosts, stress=stress, **more))
    async with served(app) as port:
        yield port, store, stress


async def ask(port: int, method: str, path: str, body: object, *headers: str) -> tuple[int, dict[str, Any]]:
    """By hand: clients choose `Host` themselves, and send it once."""
    content = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if content else []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(answer) if answer.startswith(b"{") else {}


@pytest.mark.parametrize("change", range(len(_CHANGES)))
async def test_a_page_whose_name_leads_here_changes_nothing(change: int) -> None:
    method, path, body, headers = _CHANGES[change]
    async with service(AllowedHosts((), loopback_port=PORT)) as (port, store, stress):
        for host in (f"evil.example:{PORT}", "evil.example", "localhost", f"localhost:{PORT + 1}", "10.0.0.1:8080"):
            status, problem = await ask(port, method, path, body, f"Host: {host}", *headers)
            assert (status, problem["type"]) == (421, "/problems/misdirected"), host
            assert f"localhost:{PORT}" in problem["detail"]
        for origin in ("http://evil.example", "null", f"http://localhost:{PORT + 1}", "https://localhost"):
            here = (f"Host: localhost:{PORT}", f"Origin: {origin}")
            status, problem = await ask(port, method, path, body, *here, *headers)
            assert (status, problem["type"]) == (403, "/problems/foreign-origin"), origin
        assert (store.claims_of["plenty"], list(store.amounts), stress.started) == ([], ["plenty"], 0)
        for own in (
            [f"Host: 127.0.0.1:{PORT}"],
            [f"Host: LOCALHOST:{PORT}", f"Origin: http://localhost:{PORT}"],
            [f"Host: [::1]:{PORT}", f"Origin: http://shop.localhost:{PORT}"],
        ):
            assert (await ask(port, method, path, body, *own, *headers))[0] not in (403, 421)


async def test_reading_is_not_bound_to_a_host() -> None:
    async with service(AllowedHosts((), loopback_port=PORT)) as (port, _, _):
        for path in ("/api/coupons", "/metrics", "/readyz"):
            assert (await ask(port, "GET", path, None, "Host: prometheus.example"))[0] == 200


async def test_further_hosts_and_origins_can_be_named() -> None:
    method, path, body, _ = _CHANGES[0]
    hosts = AllowedHosts(("claims", "proxy:9000"), loopback_port=PORT, cors=Cors(("https://shop.example",)))
    async with service(hosts) as (port, _, _):

        async def status(*headers: str) -> int:
            return (await ask(port, method, path, body, *headers))[0]

        for host in ("claims", "claims:1234", "Proxy:9000", f"localhost:{PORT}"):
            assert await status(f"Host: {host}") in (201, 409)
        for host in ("proxy", "proxy:9001", "claims.evil.example"):
            assert await status(f"Host: {host}") == 421
        for origin, expected in (("https://shop.example", 409), ("https://claims", 409), ("https://evil.example", 403)):
            assert await status("Host: claims", f"Origin: {origin}") == expected


@pytest.mark.parametrize(
    ("name", "host", "origin", "is_allowed"),
    [
        ("app:443", "app", "https://app", True),
        ("app:443", "App:443", None, True),
        ("app:80", "app", "http://app", True),
        ("[::1]:443", "[::1]", "https://[::1]", True),
        ("app:443", "app:80", None, False),
        ("app:8443", "app", None, False),
        ("app:443", "evil", None, False),
        ("app:443", "app", "http://app", False),
        ("app:80", "app", "https://app", False),
    ],
)
def test_clients_leave_out_the_usual_ports(name: str, host: str, origin: str | None, is_allowed: bool) -> None:
    assert allows(host, origin, AllowedHosts((name,))) == is_allowed


async def test_without_named_hosts_a_service_is_asked_under_any() -> None:
    method, path, body, _ = _CHANGES[0]
    async with service(None) as (port, _, _):
        assert (await ask(port, method, path, body, "Host: any.example", "Origin: https://any.example"))[0] == 201


def allows(host: str, origin: str | None = None, hosts: AllowedHosts | None = None) -> bool:
    headers = {"Host": host, **({"Origin": origin} if origin is not None else {})}
    hosts = hosts or AllowedHosts((), loopback_port=PORT)
    return hosts.refusal(CIMultiDictProxy(CIMultiDict(headers))) is None


@given(st.one_of(st.text(st.sampled_from("localhst127.0:[]8@/# \\%evi"), max_size=24), st.text(max_size=10)))
@example("localhost.evil.example:8080")
@example("evil.example:8080@localhost:8080")
@example("127.0.0.1.evil.example:8080")
@example("localhost:8080/evil")
@example("localhost:08080x")
@settings(max_examples=300, deadline=None)
def test_no_other_text_is_taken_for_this_machine(host: str) -> None:
    name, _, port = host.lower().rpartition(":")
    is_own = port.isascii() and port.isdecimal() and int(port) == PORT and len(port) <= 5
    expected = is_own and (name == "localhost" or name.endswith(".localhost") or name.startswith("127.") or "[" in name)
    if allows(host):
        assert expected


@given(address=st.ip_addresses(), port=st.integers(1, 65535))
@example(IPv4Address("127.0.0.1"), PORT)
@example(IPv4Address("127.8.8.8"), PORT)
@example(IPv6Address("::1"), PORT)
@example(IPv4Address("0.0.0.0"), PORT)
def test_addresses_are_this_machine_s_if_they_are_loopback(address: IPv4Address | IPv6Address, port: int) -> None:
    host = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    assert allows(host) == (address.is_loopback and port == PORT)
    assert allows("localhost:8080", f"http://{host}") == (address.is_loopback and port == PORT)


@pytest.mark.parametrize("host", ["http://app", "app/", "app:", "app:0x50", "a b", "*", "app:123456"])
def test_what_is_no_host_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(ValueError, match="each must be a host"):
        check_hosts((host,))


def test_hosts_are_read_from_the_setting() -> None:
    urls = {"database_url": "postgresql://a:b@c/d", "redis_urls": "redis://a"}
    found = Settings(**urls, allowed_hosts="App, [::1]:80,app.example:8080")
    assert found.allowed_hosts == ("app", "[::1]:80", "app.example:8080")
