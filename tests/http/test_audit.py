"""The audit: what is done leaves an entry, with it or not at all; and whoever may, reads it by page and by filter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import psycopg
import pytest

from claimsvc.domain import AuditFilter, Claimed, ClaimOptions, StrategyName
from claimsvc.http.app import create_app
from claimsvc.postgres import Repositories
from tests.http.memory_services import Observations, memory_services
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.databases import administrate
from tests.support.memory_store import MemoryStore
from tests.support.program import claimsvc_here
from tests.support.serving import served
from tests.support.storage import attempts, create_coupon, open_storage

KEY = f"admin-key:{ADMIN_DIGEST[:12]}"


class Stage:
    """The service's routes on a real database, and the database."""

    def __init__(self, url: str, client: aiohttp.ClientSession, storage: Repositories, database_url: str) -> None:
        self.url, self.client, self.storage, self.database_url = url, client, storage, database_url

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        sent = {**ADMIN, **headers}
        async with self.client.request(method, self.url + path, json=body, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    async def told(self, query: str) -> list[dict[str, Any]]:
        status, page = await self.ask("GET", f"/api/audit?{query}")
        assert status == 200, page
        found: list[dict[str, Any]] = page["items"]
        return found

    async def held(self, user: str) -> str:
        """The id of a claim of `spring` that this user holds for a minute."""
        [attempt] = attempts(user)
        [outcome] = await self.storage.admission.admit(
            [type(attempt)(attempt.claim_id, attempt.coupon_name, user, ClaimOptions(hold_seconds=60))]
        )
        assert isinstance(outcome, Claimed)
        return outcome.claim.id

    def run_out(self, claim_id: str) -> None:
        """Let a hold's time be over."""
        administrate(
            self.database_url, f"UPDATE user_claims SET held_until = now() - interval '1 s' WHERE id = '{claim_id}'"
        )


@asynccontextmanager
async def staged(database_url: str) -> AsyncIterator[Stage]:
    async with open_storage(database_url) as (storage, _), aiohttp.ClientSession() as client:
        real: dict[str, object] = {"coupons": storage.coupons, "claim_records": storage.claims}
        real |= {"campaigns": storage.campaigns, "transitions": storage.claims}
        app = create_app(memory_services(MemoryStore(), Observations(), audit=storage.audit_log, **real))
        async with served(app) as port:
            yield Stage(f"http://127.0.0.1:{port}", client, storage, database_url)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as opened:
        yield opened


async def test_a_coupon_s_life_is_told_newest_first_with_who_did_what(stage: Stage) -> None:
    await stage.ask("POST", "/api/coupons", {"name": "spring", "amount": 5}, **{"X-Request-ID": "first"})
    status, _ = await stage.ask("POST", "/api/coupons", {"name": "spring", "amount": 7})
    assert status == 409
    await stage.ask("PATCH", "/api/coupons/spring", {"amount": 6})
    await stage.ask("POST", "/api/coupons/spring/archive")
    told = await stage.told("subject_type=coupon&subject=spring")
    assert [(each["action"], each["actor"], each["details"]) for each in told] == [
        ("coupon.archive", KEY, {}),
        ("coupon.change", KEY, {"fields": ["amount"], "changes": {"amount": {"old": 5, "new": 6}}}),
        ("coupon.create", KEY, {"amount": 5, "strategy": "redlock"}),
    ]
    assert told[2]["request_id"] == "first"


async def test_a_claim_s_life_is_told_from_its_making_on_and_names_no_user(stage: Stage) -> None:
    await create_coupon(stage.storage, "spring", 5, StrategyName.REDLOCK)
    [plain] = attempts("ann")
    await stage.storage.admission.admit([plain])
    confirmed, late, again = [await stage.held(user) for user in ("ben", "cleo", "dan")]
    await stage.ask("POST", f"/api/claims/{confirmed}/confirm")
    await stage.ask("POST", f"/api/claims/{confirmed}/confirm")
    stage.run_out(late)
    assert (await stage.ask("POST", f"/api/claims/{late}/confirm"))[0] == 410
    await stage.storage.admission.admit(attempts("dan"))
    await stage.ask("DELETE", f"/api/claims/{confirmed.upper()}", {"reason": "a change of mind"})

    async def life(claim_id: str) -> list[tuple[str, str]]:
        told = await stage.told(f"subject_type=claim&subject={claim_id}")
        return [(each["action"], each["actor"]) for each in told]

    made = ("claim.make", "claimant")
    assert await life(plain.claim_id) == [made]
    assert await life(confirmed) == [("claim.cancel", "anybody"), ("claim.confirm", "anybody"), made]
    assert await life(late.upper()) == [("claim.expire", "clock"), made]
    assert await life(again) == [("claim.confirm", "claimant"), made]
    # A plain claim costs no entry.
    assert administrate(stage.database_url, f"SELECT count(*) FROM audit WHERE subject = '{plain.claim_id}'") == [(0,)]
    # Names that no hexadecimal number has in it.
    written = str(administrate(stage.database_url, "SELECT audit FROM audit"))
    assert not [user for user in ("ann", "ben", "cleo", "dan") if user in written]


async def test_pages_and_filters_lose_nothing_and_tell_nothing_twice(stage: Stage) -> None:
    for number in range(7):
        await create_coupon(stage.storage, f"c{number % 2}", 5, StrategyName.REDLOCK, actor=f"job:{number}")
        await stage.ask("PATCH", f"/api/coupons/c{number % 2}", {"amount": 10 + number})
    everything = await stage.told("limit=100")
    assert len(everything) == 9
    paged, link = [], f"{stage.url}/api/audit?limit=2"
    while link:
        async with stage.client.get(link, headers=ADMIN) as response:
            paged += (await response.json())["items"]
            link = str(response.links["next"]["url"]) if "next" in response.links else ""
    assert paged == everything
    assert [each["actor"] for each in await stage.told("action=coupon.create")] == ["job:1", "job:0"]
    assert [each["subject"] for each in await stage.told("actor=job:1")] == ["c1"]
    assert {each["subject"] for each in await stage.told("subject=c1")} == {"c1"}
    assert await stage.told(f"since={everything[3]['at']}&limit=100") == everything[:4]
    assert await stage.told("subject_type=key") == []


async def test_what_is_not_kept_leaves_no_entry_and_what_cannot_be_audited_is_not_done(stage: Stage) -> None:
    await create_coupon(stage.storage, "spring", 1, StrategyName.REDLOCK)
    held = await stage.held("ada")
    administrate(stage.database_url, "ALTER TABLE audit ADD CONSTRAINT broken CHECK (action = 'none') NOT VALID")
    with pytest.raises(psycopg.errors.CheckViolation):
        await create_coupon(stage.storage, "summer", 1, StrategyName.REDLOCK)
    with pytest.raises(psycopg.errors.CheckViolation):
        await stage.storage.claims.confirm(held)
    claim = await stage.storage.claims.claim(held)
    assert claim is not None
    assert claim.expires_at is not None
    assert await stage.storage.coupons.coupon("summer", claimants=1) is None
    kept = await stage.storage.audit_log.entries(AuditFilter(), after=None, limit=9)
    assert [each.action for each in kept] == ["coupon.create"]


async def test_the_command_tells_the_same(stage: Stage) -> None:
    await create_coupon(stage.storage, "spring", 5, StrategyName.REDLOCK, actor="key:[red]")
    variables = {"CLAIMSVC_DATABASE_URL": stage.database_url}
    shown = claimsvc_here("audit", "--subject", "spring", **variables)
    assert (shown.returncode, "key:[red]" in shown.stdout, "coupon spring" in shown.stdout) == (0, True, True)
    shown = claimsvc_here(
        "audit", "--since", "2020-01-01T00:00:00Z", "--action", "coupon.create", "--json", **variables
    )
    assert (shown.returncode, '"subject": "spring"' in shown.stdout) == (0, True)
    shown = claimsvc_here("audit", "--since", "yesterday", **variables)
    assert (shown.returncode, "--since" in shown.stderr) == (2, True)
