"""What clients send reaches neither the log's structure, nor a terminal, nor the number of metric series."""

import asyncio
import random
import re
import string

import pytest

from claimsvc.embedded import free_port
from claimsvc.http.routes import ROUTES
from tests.faults.hostile.conftest import Serve, Victim
from tests.support.raw_http import connected, request
from tests.support.waiting import until

pytestmark = pytest.mark.slow

_FORGED = '"}\\r\\n{"event":"forged"}'
INJECTIONS = {
    "line breaks in the path": request("GET", "/a%0D%0A%7B%22event%22:%22forged%22%7D%0A"),
    "escape sequence in the path": request("GET", "/%1b[2J%1b]0;title%07"),
    "JSON in the path": request("GET", '/a","event":"forged","x":"'),
    "bidirectional path": request("GET", "/%E2%80%AE/gnp.exe"),
    "bytes beyond ASCII in the path": request("GET", "/é\u202e"),
    "long path": request("GET", "/" + "a" * 8000),
    "JSON in the request id": request("GET", "/", X_Request_ID=_FORGED),
    "escape sequence in the request id": request("GET", "/", X_Request_ID="\x9b31m"),
    "bytes beyond UTF-8 in the request id": request("GET", "/").replace(b"Host", b"X-Request-ID: \xff\x9b\r\nHost"),
    "long request id": request("GET", "/", X_Request_ID="a" * 5000),
    "empty request id": request("GET", "/", X_Request_ID=""),
    "escape sequence in the user agent": request("GET", "/", User_Agent="\x9b2J"),
    "JSON in the user agent": request("GET", "/", User_Agent=_FORGED),
    "forged client": request("GET", "/", X_Forwarded_For="9.9.9.9\t", Forwarded="for=9.9.9.9"),
    "body": request("POST", "/api/coupons/claim", b'{"user_id":"\\u001b[2J\\n","coupon_name":"\\u0000"}'),
    "method": b'X"}{\x1b[2J / HTTP/1.1\r\nHost: x\r\n\r\n',
    "no HTTP": b"\x1b]0;title\x07\n\n\r\n\r\n",
}


@pytest.mark.parametrize("data", INJECTIONS.values(), ids=INJECTIONS.keys())
async def test_nothing_that_a_client_sends_forges_a_line(victim: Victim, data: bytes) -> None:
    async with connected(victim.port) as wire:
        await wire.send(data)
        assert await wire.answer() is not None
    [line] = await victim.new_lines()
    assert line["event"] == "request"
    assert line["remote"] == "127.0.0.1"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", line["request_id"])
    assert len(str(line)) < 1200
    for value in line.values():
        assert str(value).isascii()
        assert str(value).isprintable()


async def test_a_terminal_is_shown_no_control_character_of_a_client_s(serve: Serve) -> None:
    victim = serve(CLAIMSVC_LOG_FORMAT="console")
    for data in INJECTIONS.values():
        async with connected(victim.port) as wire:
            await wire.send(data)
            assert await wire.answer() is not None
    await until(lambda: victim.program.raw_stderr().count(b"status=") >= len(INJECTIONS), "all of it is logged")
    lines = victim.program.raw_stderr().decode().splitlines()
    assert len([line for line in lines if "request" in line]) == len(INJECTIONS)
    assert all(line.isascii() and line.isprintable() for line in lines)


async def test_series_stay_as_few_whatever_is_asked_for(victim: Victim) -> None:
    """Ten thousand random paths, names, users and methods, after ten thousand others: not one series more."""
    rng = random.Random(20261121)
    alphabet = string.ascii_letters + string.digits + "._-%/{}"
    templates = ["/{}", "/api/{}", "/api/coupons/{}", "/api/coupons/{}/claims", "/api/claims/{}", "/problems/{}"]
    methods = ["GET", "HEAD", "PUT", "DELETE", "PURGE", "MKCOL", "REPORT", "OPTIONS", "PATCH", "POST", "TRACE", "QUERY"]

    def asked() -> bytes:
        name = "".join(rng.choices(alphabet, k=rng.randint(1, 30)))
        if rng.random() < 0.3:
            body = f'{{"user_id": "{rng.getrandbits(64):x}", "coupon_name": "{rng.getrandbits(64):x}"}}'
            return request("POST", "/api/coupons/claim", body.encode(), X_Request_ID=name)
        return request(rng.choice(methods), rng.choice(templates).format(name), User_Agent=name)

    async def ask(requests: bytes) -> None:
        async with connected(victim.port) as wire:
            reading = asyncio.ensure_future(wire.is_closed_after_answer(120))
            await wire.send(requests + request(Connection="close"))
            await reading

    async def series_after(count: int) -> set[str]:
        shares = [b"".join(asked() for _ in range(count // 10)) for _ in range(10)]
        await asyncio.gather(*map(ask, shares))
        exposition = (await victim.ask("GET", "/metrics")).body.decode()
        return {line.rpartition(" ")[0] for line in exposition.splitlines() if not line.startswith("#")}

    await victim.ask("GET", "/metrics")
    first = await series_after(10_000)
    assert await series_after(10_000) == first
    routes = {route for line in first for route in re.findall(r'claimsvc_http_requests_total\{.*route="([^"]*)"', line)}
    assert routes <= {route.path for route in ROUTES} | {"unmatched"}
    coupons = {name for line in first for name in re.findall(r'coupon="([^"]*)"', line)}
    assert coupons <= {"plenty", "last", "wanted", "other"}
    assert len(await victim.new_lines()) == 20_000 + 2 * 11 + 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_operators_have_their_own_port_whatever_the_number_of_workers(serve: Serve, workers: str) -> None:
    port = free_port()
    victim = serve(CLAIMSVC_WORKERS=workers, CLAIMSVC_ADMIN_PORT=str(port))
    assert (await victim.ask("GET", "/metrics")).status == 404
    async with connected(port) as wire:
        await wire.send(request("GET", "/metrics", Connection="close"))
        [answer] = await wire.answers()
    assert answer.status == 200
    assert b"claimsvc_http_requests_total{" in answer.body
