"""A coupon whose name has blanks, everywhere a name is read, and shown: paths, bodies, locks, metrics, commands."""

import asyncio
import json
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from claimsvc.client import ClaimClient, Claimed, CouponCreated, SoldOut
from claimsvc.domain import StrategyName
from tests.end_to_end.conftest import Connect, OpenService, metric
from tests.support.admin import ADMIN
from tests.support.program import claimsvc_here

_NAME = "Load Test Campaign"


async def asked(session: aiohttp.ClientSession, method: str, url: str, **options: object) -> tuple[int, str, str]:
    async with session.request(method, URL(url, encoded=True), headers=ADMIN, **options) as response:  # type: ignore[arg-type]
        return response.status, await response.text(), response.headers.get("Location", "")


@pytest.mark.parametrize("strategy", list(StrategyName))
async def test_the_stock_is_exact_and_every_path_leads_to_it(
    open_service: OpenService, connect: Connect, session: aiohttp.ClientSession, strategy: StrategyName
) -> None:
    url = await open_service()
    client: ClaimClient = connect(url)
    assert isinstance(await client.create_coupon(_NAME, 5, strategy=strategy), CouponCreated)
    outcomes = await asyncio.gather(
        *(client.claim(user_id=f"user-{number}", coupon_name=_NAME) for number in range(20))
    )
    assert [sum(isinstance(each, kind) for each in outcomes) for kind in (Claimed, SoldOut)] == [5, 15]
    # Without an idempotency key a claim takes the fast path.
    body = json.dumps({"user_id": "late", "coupon_name": _NAME})
    options = {"data": body, "headers": {"Content-Type": "application/json"}}
    async with session.post(f"{url}/api/coupons/claim", **options) as response:  # type: ignore[arg-type]
        assert response.status == 409
    assert len([claim async for claim in client.claims(_NAME)]) == 5
    coupon = json.loads((await asked(session, "GET", f"{url}/api/coupons/{quote(_NAME)}"))[1])
    assert (coupon["name"], coupon["remaining_amount"]) == (_NAME, 0)
    assert (await asked(session, "GET", url + coupon["claims"]))[0] == 200
    series = f'claimsvc_claims_total{{coupon="{_NAME}",outcome="sold-out",strategy="{strategy}"}}'
    assert await metric(session, url, series) >= 15


async def test_every_route_of_a_coupon_takes_its_name(
    open_service: OpenService, session: aiohttp.ClientSession, database_url: str
) -> None:
    url = await open_service()
    status, _, location = await asked(session, "POST", f"{url}/api/coupons", json={"name": _NAME, "amount": 5})
    assert (status, location) == (201, "/api/coupons/Load%20Test%20Campaign")
    at = url + location
    for method, path, options, expected in (
        ("PATCH", "", {"json": {"paused": True}}, 200),
        ("POST", "/eligibility", {"json": {"user_id": "ann"}}, 200),
        ("PUT", "/allow-list", {"data": b"user_id\nann\n", "params": None}, 415),
        ("DELETE", "/allow-list", {}, 200),
        ("POST", "/codes/generate", {"json": {"count": 2, "pattern": "AAAA-9999"}}, 200),
        ("GET", "/claims/export", {}, 200),
        ("POST", "/archive", {}, 200),
    ):
        assert (await asked(session, method, at + path, **options))[0] == expected, path
    assert (await asked(session, "GET", f"{url}/api/audit?subject={quote(_NAME)}"))[0] == 200
    assert (await asked(session, "DELETE", f"{url}/api/locks/{quote(_NAME)}"))[0] == 404
    listed = await asked(session, "GET", f"{url}/api/coupons?state=archived&search={quote('t c')}&limit=1")
    assert [each["name"] for each in json.loads(listed[1])["items"]] == [_NAME]
    for words in (("coupon", "show", _NAME), ("claims", "export", _NAME)):
        done = claimsvc_here(*words, CLAIMSVC_DATABASE_URL=database_url)
        assert (done.returncode, done.stderr) == (0, "")


async def test_pages_go_on_after_a_name_with_blanks(open_service: OpenService, session: aiohttp.ClientSession) -> None:
    url = await open_service()
    names = ["a", "a b", "a b c", "a-b", "a.", ". b"]
    for name in names:
        assert (await asked(session, "POST", f"{url}/api/coupons", json={"name": name, "amount": 1}))[0] == 201
    found, query = [], "limit=1"
    while True:
        page = json.loads((await asked(session, "GET", f"{url}/api/coupons?{query}"))[1])
        found += [each["name"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        query = f"limit=1&cursor={page['next_cursor']}"
    assert found == sorted(names)
