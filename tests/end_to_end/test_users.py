"""Users who show tokens, and keys with scopes, on the whole service under every strategy."""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from claimsvc.bootstrap import application
from claimsvc.config import DatabaseSettings, Settings
from claimsvc.connect import open_repositories
from claimsvc.domain import Scope, StrategyName
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.databases import administrate
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer

CLAIM = {"coupon_name": "spring"}
SUPPORT = "the key of those who help users"


@pytest.fixture
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@dataclass
class Stage:
    """The service with tokens; `ask` asks the instance that was started last."""

    start: Callable[[], Awaitable[str]]
    client: aiohttp.ClientSession
    issuer: Issuer
    url: str = field(init=False)

    async def ask(
        self, method: str, path: str, body: object, credentials: dict[str, str], **headers: str
    ) -> tuple[int, dict[str, Any]]:
        sent = {**credentials, **headers}
        async with self.client.request(method, self.url + path, json=body, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    def user(self, user_id: str) -> dict[str, str]:
        return bearer(self.issuer.token(user_id))


@pytest.fixture
async def stage(database_url: str, redis_urls: tuple[str, ...], tmp_path: Path) -> AsyncIterator[Stage]:
    issuer, jwks = Issuer(), tmp_path / "keys.json"
    jwks.write_text(json.dumps({"keys": [issuer.public()]}), encoding="utf-8")
    settings = Settings(
        database_url=database_url,
        redis_urls=redis_urls,
        admin_keys=(ADMIN_DIGEST,),
        jwt_jwks=str(jwks),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    )
    async with AsyncExitStack() as stack:

        async def start() -> str:
            app = await stack.enter_async_context(application(settings))
            port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
            return f"http://127.0.0.1:{port}"

        stage = Stage(start, await stack.enter_async_context(aiohttp.ClientSession()), issuer)
        stage.url = await start()
        yield stage


@pytest.fixture(params=list(StrategyName))
async def spring(request: pytest.FixtureRequest, stage: Stage) -> None:
    body = {"name": "spring", "amount": 3, "strategy": request.param}
    status, _ = await stage.ask("POST", "/api/coupons", body, ADMIN)
    assert status == 201


@pytest.mark.usefixtures("spring")
async def test_a_claim_is_its_user_s_alone_from_holding_to_giving_back(stage: Stage, database_url: str) -> None:
    ann, eve = stage.user("ann"), stage.user("eve")
    status, claim = await stage.ask("POST", "/api/coupons/claim", {**CLAIM, "hold_seconds": 60}, ann)
    assert (status, claim["user_id"], claim["state"]) == (201, "ann", "held")
    path = f"/api/claims/{claim['id']}"
    for method, of_it, body in (("GET", "", None), ("POST", "/confirm", None), ("DELETE", "", {"reason": "envy"})):
        status, problem = await stage.ask(method, path + of_it, body, eve)
        assert (status, problem["type"]) == (403, "/problems/not-your-claim")
        status, problem = await stage.ask(method, path + of_it, body, {})
        assert (status, problem["type"]) == (401, "/problems/unauthorized")
    status, claim = await stage.ask("POST", f"{path}/confirm", None, ann)
    assert (status, claim["state"]) == (200, "active")
    status, claim = await stage.ask("DELETE", path, {"reason": "a present for nobody"}, ann)
    assert (status, claim["state"]) == (200, "cancelled")
    # Also when it is over, it is nobody else's.
    status, _ = await stage.ask("DELETE", path, {"reason": "envy"}, eve)
    assert status == 403
    audited = administrate(
        database_url, "SELECT actor, action, reason FROM audit WHERE subject_type = 'claim' ORDER BY id"
    )
    assert audited == [("claimant", "claim.confirm", ""), ("claimant", "claim.cancel", "a present for nobody")]
    _, coupon = await stage.ask("GET", "/api/coupons/spring", None, ADMIN)
    assert (coupon["remaining_amount"], coupon["claimed_by"]) == (3, [])


@pytest.mark.usefixtures("spring")
async def test_an_idempotency_key_is_its_user_s_and_outlives_the_instance(stage: Stage) -> None:
    key = {"Idempotency-Key": "one"}
    told = [await stage.ask("POST", "/api/coupons/claim", CLAIM, stage.user(user), **key) for user in ("ann", "eve")]
    assert [(status, claim["user_id"]) for status, claim in told] == [(201, "ann"), (201, "eve")]
    stage.url = await stage.start()
    again = [await stage.ask("POST", "/api/coupons/claim", CLAIM, stage.user(user), **key) for user in ("ann", "eve")]
    assert again == told


@pytest.mark.usefixtures("spring")
async def test_a_key_with_the_scope_acts_for_users_and_is_named_in_the_audit(stage: Stage, database_url: str) -> None:
    async with open_repositories(DatabaseSettings(database_url=database_url)) as storage:
        digest = hashlib.sha256(SUPPORT.encode()).digest()
        scopes = {Scope.CLAIMS_WRITE}
        made = await storage.keys.create(
            digest, label="support", scopes=scopes, expires_seconds=None, actor="os-user:x@y"
        )
        support = bearer(SUPPORT)
        status, claim = await stage.ask("POST", "/api/coupons/claim", {**CLAIM, "user_id": "zoe"}, support)
        assert (status, claim["user_id"]) == (201, "zoe")
        status, _ = await stage.ask("DELETE", f"/api/claims/{claim['id']}", {"reason": "zoe has called"}, support)
        assert status == 200
        status, problem = await stage.ask("GET", f"/api/claims/{claim['id']}", None, support)
        assert (status, problem["type"]) == (403, "/problems/forbidden")
        audited = administrate(database_url, "SELECT actor, reason FROM audit WHERE subject_type = 'claim'")
        assert audited == [(f"key:{made.id}", "zoe has called")]


async def test_a_service_says_at_its_start_when_claiming_is_open(
    log_lines: list[structlog.typing.EventDict], stage: Stage, database_url: str, redis_urls: tuple[str, ...]
) -> None:
    assert not [line for line in log_lines if line["event"] == "claiming_is_open"]
    async with application(Settings(database_url=database_url, redis_urls=redis_urls)):
        pass
    assert [line["log_level"] for line in log_lines if line["event"] == "claiming_is_open"] == ["warning"]


async def test_a_service_warns_at_its_start_of_a_setting_by_its_former_name(
    log_lines: list[structlog.typing.EventDict],
    database_url: str,
    redis_urls: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLAIMSVC_CLAIM_PATIENCE_SECONDS", "2")
    monkeypatch.setenv("CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS", "2")
    monkeypatch.setenv("CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS", "3")
    async with application(Settings(database_url=database_url, redis_urls=redis_urls)):
        pass
    warned = [(line["log_level"], line["reason"]) for line in log_lines if line["event"] == "setting_renamed"]
    former, current = "CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS", "CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS"
    assert warned == [
        ("warning", "CLAIMSVC_CLAIM_PATIENCE_SECONDS is now CLAIMSVC_CLAIM_QUEUE_TIMEOUT_SECONDS"),
        ("warning", f"{former} is now {current}; it is ignored, because {current} is set too"),
    ]
