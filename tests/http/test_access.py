"""Who may do what: every route of the router itself, asked by every kind of caller."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import hdrs, web

from claimsvc.domain import Claimed, Scope, StrategyName, TicketState
from claimsvc.http.app import create_app
from claimsvc.identity.tokens import open_tokens
from tests.http.memory_services import Observations, memory_services
from tests.http.ticketed import HeldTickets, ended
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer

# Callers whose credentials are good: what they may not do is 403, for all others it is 401.
KEYS = {scope.value for scope in Scope}
KNOWN = {"ann", "eve", "admin", *KEYS}
UNKNOWN = {"nobody", "expired token", "unknown key", "no bearer"}
ALL = KNOWN | UNKNOWN

# With users' tokens: who is let through. ann claims for herself, and has a claim; eve would like to.
WITH_TOKENS: dict[str, set[str]] = {
    "POST /api/coupons/claim": {"ann", "admin", "claims:write"},
    "GET /api/claims/{id}": {"ann", "admin", "claims:read"},
    "GET /api/coupons/{name}/claims": {"admin", "claims:read"},
    # They show each caller what it may see; a credential that is not good is refused.
    "GET /api/coupons/{name}": KNOWN | {"nobody"},
    "GET /api/coupons/claim": KNOWN | {"nobody"},
    "POST /api/claims/{id}/confirm": {"ann", "admin", "claims:write"},
    "DELETE /api/claims/{id}": {"ann", "admin", "claims:write"},
    "POST /api/coupons": {"admin", "coupons:write"},
    "PATCH /api/coupons/{name}": {"admin", "coupons:write"},
    "PATCH /api/coupons/claim": {"admin", "coupons:write"},
    "POST /api/coupons/{name}/archive": {"admin", "coupons:write"},
    "POST /api/coupons/{name}/eligibility": {"ann", "admin", "claims:write"},
    "PUT /api/coupons/{name}/allow-list": {"admin", "coupons:write"},
    "PUT /api/coupons/{name}/deny-list": {"admin", "coupons:write"},
    "DELETE /api/coupons/{name}/allow-list": {"admin", "coupons:write"},
    "DELETE /api/coupons/{name}/deny-list": {"admin", "coupons:write"},
    "GET /api/coupons": ALL,
    "GET /api/coupons/{name}/draw": ALL,
    "POST /api/coupons/{name}/codes": {"admin", "codes:write"},
    "POST /api/coupons/{name}/codes/generate": {"admin", "codes:write"},
    "POST /api/codes/{code}/redeem": {"admin", "codes:redeem"},
    "POST /api/codes/{code}/unredeem": {"admin", "codes:redeem"},
    # A user sees their own codes only.
    "GET /api/codes/{code}/validate": {"ann", "eve", "admin", "codes:redeem"},
    "POST /api/claims/{id}/redeem": {"ann", "admin", "codes:redeem"},
    "POST /api/claims/{id}/unredeem": {"admin", "codes:redeem"},
    "GET /api/coupons/{name}/codes": {"admin", "codes:read"},
    "GET /api/codes/{code}": {"admin", "codes:read"},
    "GET /api/codes": {"admin", "codes:read"},
    "GET /api/locks": {"admin", "locks:read"},
    "DELETE /api/locks/{coupon_name}": {"admin", "locks:write"},
    "GET /api/tickets/{id}": {"ann", "admin", "tickets:read"},
    "GET /api/tickets/{id}/events": {"ann", "admin", "tickets:read"},
    "DELETE /api/tickets/{id}": {"ann", "admin", "tickets:write"},
    "GET /api/queues": {"admin", "tickets:read"},
    "GET /api/coupons/{name}/tickets": {"admin", "tickets:read"},
    "POST /api/coupons/{name}/queue/pause": {"admin", "tickets:write"},
    "POST /api/coupons/{name}/queue/resume": {"admin", "tickets:write"},
    "GET /api/dead-letters": {"admin", "tickets:read"},
    "POST /api/dead-letters/{id}/requeue": {"admin", "tickets:write"},
    "DELETE /api/dead-letters/{id}": {"admin", "tickets:write"},
    "GET /api/audit": {"admin", "audit:read"},
    "DELETE /api/users/{id}": {"admin", "users:erase"},
    "GET /api/users/{user_id}/claims": {"ann", "admin", "claims:read"},
    "GET /api/users/me/claims": {"ann", "eve"},
    "GET /api/coupons/{name}/claims/export": {"admin", "claims:read"},
    "GET /livez": ALL,
    "GET /health": ALL,
    "GET /healthcheck": ALL,
    "GET /readyz": ALL,
    "GET /metrics": ALL,
    "GET /openapi.json": ALL,
    "GET /problems/{slug}": ALL,
    "GET /queue/{id}": ALL,
    "GET /queue/{id}/events": ALL,
    "GET /": ALL,
    "GET /docs": ALL,
    "GET /docs/{file}": ALL,
    "GET /console": ALL,
    "GET /console/events": ALL,
    "GET /console/{file}": ALL,
    "POST /console/stress-test": ALL,
}
# Without them only these ask who it is, and a user's token is a key that nobody knows.
WITHOUT_TOKENS = {
    "POST /api/coupons": {"admin", "coupons:write"},
    "PATCH /api/coupons/{name}": {"admin", "coupons:write"},
    "PATCH /api/coupons/claim": {"admin", "coupons:write"},
    "POST /api/coupons/{name}/archive": {"admin", "coupons:write"},
    "POST /api/coupons/{name}/codes": {"admin", "codes:write"},
    "POST /api/coupons/{name}/codes/generate": {"admin", "codes:write"},
    "POST /api/codes/{code}/redeem": {"admin", "codes:redeem"},
    "POST /api/codes/{code}/unredeem": {"admin", "codes:redeem"},
    "GET /api/codes/{code}/validate": {"admin", "codes:redeem"},
    "POST /api/claims/{id}/redeem": {"admin", "codes:redeem"},
    "POST /api/claims/{id}/unredeem": {"admin", "codes:redeem"},
    "GET /api/coupons/{name}/codes": {"admin", "codes:read"},
    "GET /api/codes/{code}": {"admin", "codes:read"},
    "GET /api/codes": {"admin", "codes:read"},
    "PUT /api/coupons/{name}/allow-list": {"admin", "coupons:write"},
    "PUT /api/coupons/{name}/deny-list": {"admin", "coupons:write"},
    "DELETE /api/coupons/{name}/allow-list": {"admin", "coupons:write"},
    "DELETE /api/coupons/{name}/deny-list": {"admin", "coupons:write"},
    "GET /api/locks": {"admin", "locks:read"},
    "DELETE /api/locks/{coupon_name}": {"admin", "locks:write"},
    "GET /api/queues": {"admin", "tickets:read"},
    "GET /api/coupons/{name}/tickets": {"admin", "tickets:read"},
    "POST /api/coupons/{name}/queue/pause": {"admin", "tickets:write"},
    "POST /api/coupons/{name}/queue/resume": {"admin", "tickets:write"},
    "GET /api/dead-letters": {"admin", "tickets:read"},
    "POST /api/dead-letters/{id}/requeue": {"admin", "tickets:write"},
    "DELETE /api/dead-letters/{id}": {"admin", "tickets:write"},
    "GET /api/audit": {"admin", "audit:read"},
    "DELETE /api/users/{id}": {"admin", "users:erase"},
    "GET /api/coupons/{name}/claims/export": {"admin", "claims:read"},
    # A key shows more than others see, so one that is sent must be good.
    "GET /api/users/{user_id}/claims": {"nobody", "admin", *KEYS},
    "GET /api/coupons/{name}/claims": {"nobody", "admin", *KEYS},
    "GET /api/users/me/claims": set(),
}

# Where a route takes a body, so that nobody is refused for what was sent.
BODIES: dict[str, dict[str, object]] = {
    "POST /api/coupons/claim": {"user_id": "ann", "coupon_name": "plenty"},
    "POST /api/coupons/{name}/eligibility": {"user_id": "ann"},
    "DELETE /api/claims/{id}": {"reason": "not needed"},
    "POST /api/coupons": {"name": "plenty", "amount": 1},
    "PATCH /api/coupons/{name}": {"paused": True},
    "PATCH /api/coupons/claim": {"paused": True},
    "POST /api/coupons/{name}/codes/generate": {"count": 1, "pattern": "AAAA-9999"},
    "DELETE /api/locks/{coupon_name}": {"reason": "it hangs"},
    "POST /api/claims/{id}/unredeem": {"reason": "it fell through"},
    "POST /api/codes/{code}/unredeem": {"reason": "it fell through"},
    "POST /api/coupons/{name}/queue/pause": {"reason": "the shop is down"},
    "POST /api/coupons/{name}/queue/resume": {"reason": "the shop is up"},
    "POST /api/dead-letters/{id}/requeue": {"reason": "PostgreSQL is back"},
    "DELETE /api/dead-letters/{id}": {"reason": "too late"},
    "POST /console/stress-test": {"scenario": "none"},
}


class NoStressTests:
    scenarios: Collection[str] = ()

    def start(self, scenario: str) -> bool:
        return False


@dataclass
class Stage:
    """A service with a claim of ann's, and what each caller sends along."""

    url: str
    client: aiohttp.ClientSession
    app: web.Application
    store: MemoryStore
    claim_id: str
    credentials: dict[str, dict[str, str]]

    async def ask(self, method: str, route: str, caller: str) -> tuple[int, Any]:
        path = route.format(
            name="plenty",
            coupon_name="plenty",
            id=self.claim_id,
            slug="sold-out",
            file="none",
            code="C-1",
            user_id="ann",
        )
        body = BODIES.get(f"{method} {route}")
        async with self.client.request(
            method, self.url + path, json=body, headers=self.credentials[caller]
        ) as response:
            raw = await response.read()
            return response.status, orjson.loads(raw) if response.content_type.endswith("json") else raw


@asynccontextmanager
async def staged(tmp_path: Path, *, with_tokens: bool) -> AsyncIterator[Stage]:
    issuer, store = Issuer(), MemoryStore()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    await store.create_coupon("claim", 1000, StrategyName.REDLOCK)
    await store.claim_unit("plenty", "bob")
    claimed = await store.claim_unit("plenty", "ann")
    assert isinstance(claimed, Claimed)
    jwks = tmp_path / "keys.json"
    jwks.write_bytes(orjson.dumps({"keys": [issuer.public()]}))
    credentials = {
        "nobody": {},
        "no bearer": {"Authorization": f"Basic {issuer.token()}"},
        "expired token": bearer(issuer.token("ann", exp=1)),
        "unknown key": bearer("claimsvc_unknown"),
        "ann": bearer(issuer.token("ann")),
        "eve": bearer(issuer.token("eve")),
        "admin": ADMIN,
        **{scope: bearer(f"key-for-{scope}") for scope in KEYS},
    }
    async with open_tokens(str(jwks), issuer=ISSUER, audience=AUDIENCE) as tokens:
        # A ticket that has ended, so that its events end, too.
        held = HeldTickets(ended(TicketState.EXPIRED, id=claimed.claim.id))
        more = {"tokens": tokens if with_tokens else None, "stress": NoStressTests(), "tickets": held, "progress": held}
        app = create_app(memory_services(store, Observations(), **more))
        async with served(app) as port, aiohttp.ClientSession() as client:
            yield Stage(f"http://127.0.0.1:{port}", client, app, store, claimed.claim.id, credentials)


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """What aiohttp's router serves; HEAD is GET's own handler."""
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    heads = {path for method, path in found if method == hdrs.METH_HEAD}
    assert heads == {path for method, path in found if method == hdrs.METH_GET}
    return {(method, path) for method, path in found if method != hdrs.METH_HEAD}


@pytest.mark.parametrize("with_tokens", [True, False], ids=["with-tokens", "without-tokens"])
async def test_every_route_lets_those_through_whom_it_is_for_and_nobody_else(tmp_path: Path, with_tokens: bool) -> None:
    async with staged(tmp_path, with_tokens=with_tokens) as stage:
        routes = routes_of(stage.app)
        assert {f"{method} {path}" for method, path in routes} == set(WITH_TOKENS), "a route is not in the table"
        wrong: list[str] = []
        for method, path in sorted(routes):
            name = f"{method} {path}"
            allowed = WITH_TOKENS[name] if with_tokens else WITHOUT_TOKENS.get(name, ALL)
            for caller in sorted(ALL):
                is_known = caller in KNOWN and (with_tokens or caller not in {"ann", "eve"})
                refusals = [] if caller in allowed else [403 if is_known else 401]
                status, _ = await stage.ask(method, path, caller)
                if (status in {401, 403}) != bool(refusals) or (refusals and status not in refusals):
                    wrong.append(f"{name} by {caller}: {status}, not {refusals or 'let through'}")
        assert wrong == []


async def test_with_a_token_the_claim_s_user_is_its_subject(tmp_path: Path) -> None:
    async with staged(tmp_path, with_tokens=True) as stage:
        url, eve = f"{stage.url}/api/coupons/claim", stage.credentials["eve"]
        async with stage.client.post(url, json={"coupon_name": "plenty"}, headers=eve) as response:
            assert (response.status, (await response.json())["user_id"]) == (201, "eve")
        body = {"coupon_name": "plenty", "user_id": "ann"}
        async with stage.client.post(url, json=body, headers=eve) as response:
            assert (response.status, (await response.json(content_type=None))["type"]) == (
                403,
                "/problems/not-your-claim",
            )
        key = stage.credentials["claims:write"]
        async with stage.client.post(url, json={"coupon_name": "plenty"}, headers=key) as response:
            assert response.status == 400
        async with stage.client.post(url, json={**body, "user_id": "zoe"}, headers=key) as response:
            assert response.status == 201
    assert [claim.user_id for claim in stage.store.claims_of["plenty"]] == ["bob", "ann", "eve", "zoe"]


async def test_who_holds_a_coupon_is_shown_to_those_whom_it_concerns(tmp_path: Path) -> None:
    async with staged(tmp_path, with_tokens=True) as stage:
        shown = {
            caller: (await stage.ask("GET", "/api/coupons/{name}", caller))[1]["claimed_by"]
            for caller in ("nobody", "ann", "eve", "locks:read", "claims:read", "admin")
        }
    assert shown == {
        "nobody": [],
        "ann": ["ann"],
        "eve": [],
        "locks:read": [],
        "claims:read": ["bob", "ann"],
        "admin": ["bob", "ann"],
    }


async def test_the_document_says_what_each_operation_asks_for(tmp_path: Path) -> None:
    async with staged(tmp_path, with_tokens=True) as stage:
        _, document = await stage.ask("GET", "/openapi.json", "nobody")
    paths = document["paths"]
    assert set(document["components"]["securitySchemes"]) == {"key", "userToken"}
    assert paths["/api/coupons/claim"]["post"]["security"] == [{"userToken": []}, {"key": ["claims:write"]}]
    assert paths["/api/coupons"]["post"]["security"] == [{"key": ["coupons:write"]}]
    assert paths["/api/coupons/{name}"]["get"]["security"] == [{}, {"userToken": []}, {"key": []}]
    assert "security" not in paths["/livez"]["get"]
