"""A user's claims over HTTP: all of them once, newest first, and codes for those who may see them."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from claimsvc.domain import AuditEntry, Campaign, Claimed, ClaimState, StrategyName, UserClaim
from claimsvc.http.app import create_app
from claimsvc.identity.tokens import open_tokens
from tests.http.asking import claim, get
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer

BENEFIT = {"percent_off": 15}


@pytest.fixture
async def offered(service: Service) -> Service:
    """A service with five further coupons, of which ann has claimed all and cancelled the second."""
    for number in range(5):
        campaign = Campaign(type="welcome", benefit=BENEFIT) if number % 2 else Campaign()
        await service.store.create_coupon(f"c{number}", 10, StrategyName.REDLOCK, campaign)
        await claim(service, f"c{number}", "bob")
        _, body, _ = await claim(service, f"c{number}", "ann")
        if number == 1:
            await service.store.cancel(body["id"], AuditEntry("a", "claim.cancel", "claim", body["id"]))
    return service


async def pages(service: Service, path: str, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        status, page, headers = await get(service, path, params=query)
        assert status == 200
        found += page["items"]
        assert (page["next_cursor"] is None) == ("Link" not in headers)
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


async def test_all_claims_of_the_user_are_listed_once_newest_first(offered: Service) -> None:
    for limit in ("1", "2", "5", "100"):
        found = await pages(offered, "/api/users/ann/claims", limit=limit)
        assert sorted(each["coupon_name"] for each in found) == [f"c{number}" for number in range(5)]
        keys = [(each["claimed_at"], each["id"]) for each in found]
        assert keys == sorted(keys, reverse=True)
        assert {each["user_id"] for each in found} == {"ann"}
    by_name = {each["coupon_name"]: each for each in found}
    assert (by_name["c1"]["type"], by_name["c1"]["benefit"], by_name["c1"]["state"]) == (
        "welcome",
        BENEFIT,
        "cancelled",
    )
    assert (by_name["c2"]["type"], by_name["c2"]["benefit"], by_name["c2"]["state"]) == (None, None, "active")
    assert await pages(offered, "/api/users/nobody/claims") == []


@pytest.mark.parametrize(
    ("state", "count"),
    [("", 5), ("active", 4), ("cancelled", 1), ("active,held", 4), ("held,expired", 0), ("cancelled,active", 5)],
)
async def test_states_are_chosen(offered: Service, state: str, count: int) -> None:
    assert len(await pages(offered, "/api/users/ann/claims", state=state)) == count


@pytest.mark.parametrize("state", ["Active", "active,", ",active", "active, held", "activeheld", "redeemed", "a" * 99])
async def test_a_state_that_there_is_not_is_refused_and_the_rule_told(service: Service, state: str) -> None:
    status, problem, _ = await get(service, "/api/users/ann/claims", params={"state": state})
    assert status == 400
    assert "separated by commas" in problem["errors"][0]["detail"]


@given(states=st.lists(st.sampled_from(ClaimState), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
async def test_any_choice_of_states_is_exactly_those(offered: Service, states: list[ClaimState]) -> None:
    found = await pages(offered, "/api/users/ann/claims", state=",".join(states), limit="3")
    every = await pages(offered, "/api/users/ann/claims")
    assert found == [each for each in every if each["state"] in states]


@pytest.mark.parametrize("user_id", ["a/b", "100%", "%2F", "a?b#c", "me2", "'\"\\", "..."])
async def test_the_path_names_any_user(service: Service, user_id: str) -> None:
    await claim(service, "plenty", user_id)
    url = URL(f"{service.url}/api/users/{quote(user_id, safe='')}/claims", encoded=True)
    async with service.client.get(url) as response:
        assert [each["user_id"] for each in (await response.json())["items"]] == [user_id]


class CodesStore(MemoryStore):
    """Every claim has a code."""

    async def claims_of_user(self, user_id: str, **options: Any) -> list[UserClaim]:
        found = await super().claims_of_user(user_id, **options)
        return [replace(each, claim=replace(each.claim, code=f"CODE-{user_id}")) for each in found]


async def codes_seen(tmp_path: Path, *, with_tokens: bool) -> dict[tuple[str, str], object]:
    """What each caller sees at each path: the status, or the code, or that there is none."""
    issuer, store = Issuer(), CodesStore()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    for user in ("ann", "me"):
        assert isinstance(await store.claim_unit("plenty", user), Claimed)
    jwks = tmp_path / "keys.json"
    jwks.write_bytes(orjson.dumps({"keys": [issuer.public()]}))
    callers = {
        "nobody": {},
        "ann": bearer(issuer.token("ann")),
        "claims": bearer("key-for-claims:read"),
        "codes": bearer("key-for-codes:read"),
        "admin": ADMIN,
    }
    seen: dict[tuple[str, str], object] = {}
    async with open_tokens(str(jwks), issuer=ISSUER, audience=AUDIENCE) as tokens:
        app = create_app(memory_services(store, Observations(), tokens=tokens if with_tokens else None))
        async with served(app) as port, aiohttp.ClientSession() as client:
            for caller, headers in callers.items():
                for user in ("ann", "me"):
                    url = f"http://127.0.0.1:{port}/api/users/{user}/claims"
                    async with client.get(url, headers=headers) as response:
                        body = await response.json(content_type=None)
                        items = body.get("items")
                        seen[caller, user] = items[0].get("code", "hidden") if items else response.status
    return seen


async def test_codes_are_shown_to_their_user_and_to_keys_that_may_read_codes(tmp_path: Path) -> None:
    assert await codes_seen(tmp_path, with_tokens=True) == {
        ("nobody", "ann"): 401,
        ("nobody", "me"): 401,
        ("ann", "ann"): "CODE-ann",
        ("ann", "me"): "CODE-ann",
        ("claims", "ann"): "hidden",
        ("claims", "me"): 403,
        ("codes", "ann"): 403,
        ("codes", "me"): 403,
        ("admin", "ann"): "CODE-ann",
        ("admin", "me"): 403,
    }


async def test_without_tokens_codes_still_need_a_key(tmp_path: Path) -> None:
    assert await codes_seen(tmp_path, with_tokens=False) == {
        ("nobody", "ann"): "hidden",
        ("nobody", "me"): 401,
        ("ann", "ann"): 401,
        ("ann", "me"): 401,
        ("claims", "ann"): "hidden",
        ("claims", "me"): 403,
        ("codes", "ann"): "CODE-ann",
        ("codes", "me"): 403,
        ("admin", "ann"): "CODE-ann",
        ("admin", "me"): 403,
    }
