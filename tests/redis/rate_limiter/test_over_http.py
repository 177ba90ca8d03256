"""How quotas are answered, and whose requests they count."""

import asyncio
from ipaddress import ip_network

import pytest

from claimsvc.http.server.addresses import client_address
from tests.redis.rate_limiter.quota_service import service
from tests.support.raw_http import connected, request

_LOCAL = (ip_network("127.0.0.0/8"),)


async def test_a_claim_beyond_the_quota_is_answered_429_and_told_when_to_come_back(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with service(database_url, redis_urls, quota_user="2/3600") as client:
        status, _, headers = await client.claim("spring", "ada")
        assert status == 201
        assert headers["RateLimit-Policy"] == '"user";q=2;w=3600'
        assert headers["RateLimit"] == '"user";r=1;t=1800'
        # What is refused for another reason is counted all the same, and so is what was claimed before.
        status, _, headers = await client.claim("spring", "ada")
        assert (status, headers["RateLimit"]) == (409, '"user";r=0;t=1800')
        status, problem, headers = await client.claim("summer", "ada", **{"X-Request-ID": "mine"})
        assert status == 429
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["RateLimit"].startswith('"user";r=0;t=')
        assert 1790 <= int(headers["Retry-After"]) <= 1800
        assert headers["RateLimit"].endswith(f"t={headers['Retry-After']}")
        assert (problem["type"], problem["status"], problem["request_id"]) == ("/problems/quota-exceeded", 429, "mine")
        assert problem["violated-policies"] == ["user"]
        assert (await client.claim("summer", "ben"))[0] == 201
        assert await client.metric('claimsvc_quota_decisions_total{policy="user",result="refused"}') == 1
        assert await client.metric('claimsvc_quota_decisions_total{policy="user",result="allowed"}') == 3


async def test_a_refusal_takes_nothing_and_is_not_kept_under_its_key(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with service(database_url, redis_urls, quota_user="1/2") as client:
        key = {"Idempotency-Key": "once"}
        assert (await client.claim("spring", "ada"))[0] == 201
        assert (await client.claim("summer", "ada", **key))[0] == 429
        async with asyncio.timeout(20):
            while (answer := await client.claim("summer", "ada", **key))[0] == 429:
                await asyncio.sleep(float(answer[2]["Retry-After"]))
        status, claim, headers = answer
        assert (status, claim["coupon_name"]) == (201, "summer")
        assert "Idempotency-Replayed" not in headers


async def test_without_a_quota_nothing_is_said_of_any(database_url: str, redis_urls: tuple[str, ...]) -> None:
    async with service(database_url, redis_urls) as client:
        _, _, headers = await client.claim("spring", "ada")
    assert not [name for name in headers if name.lower().startswith("ratelimit")]


async def test_many_at_once_get_as_much_as_the_quota_and_no_more(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with service(database_url, redis_urls, quota_address="7/3600") as client:
        answers = await asyncio.gather(*(client.claim("spring", f"user-{number}") for number in range(100)))
    statuses = [status for status, _, _ in answers]
    assert (statuses.count(201), statuses.count(429)) == (7, 93)


async def test_an_address_is_that_of_the_client_and_not_of_its_proxy(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    settings = {"quota_address": "1/3600", "trusted_proxies": "127.0.0.0/8, 10.0.0.0/8"}
    async with service(database_url, redis_urls, **settings) as client:

        async def ask(forwarded: str, user: str) -> int:
            return (await client.claim("spring", user, **{"X-Forwarded-For": forwarded}))[0]

        assert await ask("192.0.2.1", "a") == 201
        assert await ask("192.0.2.2, 10.1.1.1", "b") == 201
        # What a client says of itself is before what the proxies say, and is not believed.
        assert await ask("192.0.2.3, 192.0.2.1", "c") == 429
        assert await ask("192.0.2.4, 192.0.2.2, 10.2.2.2", "d") == 429


async def test_where_no_proxy_is_trusted_nobody_chooses_their_address(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    async with service(database_url, redis_urls, quota_address="1/3600") as client:
        assert (await client.claim("spring", "a", **{"X-Forwarded-For": "192.0.2.1"}))[0] == 201
        assert (await client.claim("spring", "b", **{"X-Forwarded-For": "192.0.2.2"}))[0] == 429


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1", "192.0.2.2"], "192.0.2.2"),
        ("127.0.0.1", ["192.0.2.1,127.0.0.2", "127.0.0.3"], "192.0.2.1"),
        ("127.0.0.1", ["127.0.0.9, 127.0.0.8"], "127.0.0.9"),
        ("192.0.2.9", ["192.0.2.1"], "192.0.2.9"),
        ("::ffff:127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("127.0.0.1", ["2001:db8::ffff:1"], "2001:db8::/64"),
        ("2001:db8:0:1::1", ["192.0.2.1"], "2001:db8:0:1::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1, "], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1, _hidden, 127.0.0.2"], "127.0.0.2"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["," * 8000], "127.0.0.1"),
        ("127.0.0.1", ["[", "]:", "1.2.3.4.5"], "127.0.0.1"),
        ("127.0.0.1", ["\x00\udcff\u0661.2.3.4"], "127.0.0.1"),
        (None, ["192.0.2.1"], None),
        ("", [], None),
    ],
)
def test_whose_a_request_is(peer: str | None, forwarded: list[str], client: str | None) -> None:
    assert client_address(peer, forwarded, _LOCAL) == client


@pytest.mark.parametrize(
    "forwarded", ["\x80\xff", "[[[[", "1" * 4000, ", ".join(["127.0.0.1"] * 400), "::1%" + "z" * 900]
)
async def test_whatever_a_client_sends_for_its_address_it_is_answered(
    database_url: str, redis_urls: tuple[str, ...], forwarded: str
) -> None:
    settings = {"quota_address": "9/3600", "trusted_proxies": "127.0.0.1"}
    async with service(database_url, redis_urls, **settings) as client:
        port = int(client.url.rpartition(":")[2])
        body = b'{"user_id": "ada", "coupon_name": "spring"}'
        async with connected(port) as wire:
            await wire.send(request("POST", "/api/coupons/claim", body, X_Forwarded_For=forwarded))
            answer = await wire.answer()
    assert answer is not None
    assert (answer.status, answer.headers["ratelimit"][:14]) == (201, '"address";r=8;')
