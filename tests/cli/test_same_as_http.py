"""What a command prints as JSON has the members, the values and the times of the answer over HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.program import claimsvc_here
from tests.support.serving import served

CREATED: tuple[tuple[str, ...], ...] = (
    ("plain", "--amount", "5"),
    (
        *("spring", "--amount", "3", "--starts-at", "2026-11-27T09:00:00.5+09:00", "--ends-at", "2099-01-01T00:00:00Z"),
        *("--type", "welcome", "--benefit", '{"percent_off": 15}', "--metadata", '{"channel": "app", "n": 1.5}'),
        *("--rules", '{"attributes": [{"name": "age", "at_least": 19}], "holds_not": ["plain"]}'),
    ),
    ("coded", "--amount", "1", "--paused", "--per-user-limit", "3"),
)


def printed(database_url: str, *words: str) -> Any:
    told = claimsvc_here(*words, "--json", CLAIMSVC_DATABASE_URL=database_url)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


@pytest.fixture
def settings(database_url: str, redis_urls: tuple[str, ...], tmp_path: Path) -> Settings:
    def run(*words: str) -> None:
        told = claimsvc_here(*words, CLAIMSVC_DATABASE_URL=database_url)
        assert told.returncode == 0, told.stderr

    for words in CREATED:
        run("coupon", "create", *words)
    codes = tmp_path / "codes.csv"
    codes.write_text("code,expires_at\nC-1,2099-01-01T00:00:00.25Z\nC-2\n")
    run("codes", "upload", "coded", str(codes))
    run("coupon", "change", "plain", "--amount", "7")
    run("coupon", "change", "coded", "--resume")
    return Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))


async def test_every_command_that_prints_json_prints_what_http_answers(settings: Settings, database_url: str) -> None:
    async with application(settings) as app, served(app) as port, aiohttp.ClientSession(headers=ADMIN) as client:

        async def answered(path: str, body: Any = None) -> Any:
            method = "GET" if body is None else "POST"
            async with client.request(method, f"http://127.0.0.1:{port}{path}", json=body) as response:
                assert response.status in (200, 201), await response.text()
                return await response.json()

        async def same(words: tuple[str, ...], path: str, *, in_items: bool = False) -> Any:
            over_http = await answered(path)
            told = await asyncio.to_thread(printed, database_url, *words)
            assert told == (over_http["items"] if in_items else over_http)
            return told

        await answered("/api/coupons/claim", {"user_id": "ada", "coupon_name": "plain"})
        for name in ("plain", "spring", "coded"):
            shown = await same(("coupon", "show", name), f"/api/coupons/{name}")
            assert shown["created_at"].endswith("Z")
        listed = await same(("coupon", "list"), "/api/coupons", in_items=True)
        assert [each["state"] for each in listed] == ["open", "open", "open"]
        await same(("audit", "--subject", "plain"), "/api/audit?subject=plain", in_items=True)
        await same(("claims", "list", "--user", "ada"), "/api/users/ada/claims", in_items=True)
        claim = await answered("/api/coupons/claim", {"user_id": "bob", "coupon_name": "coded"})
        await answered(f"/api/codes/{claim['code']}/redeem", {})
        await same(("claims", "list", "--user", "bob"), "/api/users/bob/claims", in_items=True)
        for code in ("C-1", "C-2"):
            await same(("codes", "show", code), f"/api/codes/{code}")
