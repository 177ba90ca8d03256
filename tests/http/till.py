"""The whole service, with users' tokens or without, and short words for what is asked of it about codes."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest

from claimsvc.bootstrap import application
from claimsvc.config import DatabaseSettings, Settings
from claimsvc.connect import open_repositories
from claimsvc.domain import Scope
from claimsvc.representations.code_files import CSV
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer

BASE = "/api/coupons/spring"


@dataclass
class Till:
    """The service, and who asks it."""

    url: str
    client: aiohttp.ClientSession
    database_url: str
    issuer: Issuer | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        by: Mapping[str, str] = ADMIN,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, Any]:
        options: dict[str, Any] = {"json": body} if not isinstance(body, bytes) else {"data": body}
        if body is None:
            options = {}
        async with self.client.request(method, self.url + path, headers={**by, **headers}, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    def user(self, user_id: str) -> dict[str, str]:
        assert self.issuer is not None
        return bearer(self.issuer.token(user_id))

    async def key(self, *scopes: Scope) -> dict[str, str]:
        """A new key with these scopes."""
        secret = "-".join(("the", "key", *scopes))
        digest = hashlib.sha256(secret.encode()).digest()
        async with open_repositories(DatabaseSettings(database_url=self.database_url)) as storage:
            await storage.keys.create(digest, label="till", scopes=scopes, expires_seconds=None, actor="test")
        return bearer(secret)

    async def offer(self, codes: str = "", query: str = "", **terms: Any) -> None:
        assert (await self.ask("POST", "/api/coupons", {"name": "spring", "amount": 5, **terms}))[0] == 201
        if codes:
            added = await self.ask("POST", f"{BASE}/codes{query}", codes.encode(), headers={"Content-Type": CSV})
            assert added[0] == 200, added

    async def claim(self, user_id: str, **body: Any) -> Any:
        status, claim = await self.ask(
            "POST", "/api/coupons/claim", {"user_id": user_id, "coupon_name": "spring", **body}
        )
        assert status == 201, claim
        return claim

    async def problem(self, method: str, path: str, body: Any = None, by: Mapping[str, str] = ADMIN) -> tuple[int, str]:
        status, problem = await self.ask(method, path, body, by)
        return status, problem["type"].removeprefix("/problems/")


@asynccontextmanager
async def opened(database_url: str, redis_urls: tuple[str, ...], **tokens: Any) -> AsyncIterator[tuple[str, Any]]:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,), **tokens)
    async with application(settings) as app, served(app, header_timeout_seconds=10) as port:
        async with aiohttp.ClientSession() as client:
            yield f"http://127.0.0.1:{port}", client


@pytest.fixture
async def open_till(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Till]:
    """Of a service without users' tokens."""
    async with opened(database_url, redis_urls) as (url, client):
        yield Till(url, client, database_url)


@pytest.fixture
async def till(database_url: str, redis_urls: tuple[str, ...], tmp_path: Path) -> AsyncIterator[Till]:
    """Of a service with users' tokens."""
    issuer, jwks = Issuer(), tmp_path / "keys.json"
    jwks.write_text(json.dumps({"keys": [issuer.public()]}), encoding="utf-8")
    tokens = {"jwt_jwks": str(jwks), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    async with opened(database_url, redis_urls, **tokens) as (url, client):
        yield Till(url, client, database_url, issuer)
