"""Codes over HTTP, on the whole service: files of them, what is shown of them, and their counts in Redis."""

import json
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.domain import GENERATION_PATTERN, NewCode, RefusedRow, RowReason
from claimsvc.domain.code_generation import make_codes, possibilities
from claimsvc.domain.codes import new_code
from claimsvc.representations.code_files import CSV, NDJSON, RowReader
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.serving import served
from tests.support.waiting import until

_FILE_ROWS = int(os.environ.get("CLAIMSVC_TEST_ROWS", "5000"))


@dataclass
class Shop:
    """The service, and who asks it."""

    url: str
    client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        types = {"Content-Type": "application/json"} if data is not None else {}
        async with self.client.request(method, self.url + path, data=data, headers=types | ADMIN | headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def add(self, rows: bytes, query: str = "", media_type: str = CSV, **headers: str) -> tuple[int, Any]:
        return await self.ask(
            "POST", f"/api/coupons/spring/codes{query}", rows, **{"Content-Type": media_type, **headers}
        )

    async def claim(self, **body: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/api/coupons/claim", body)


@pytest.fixture
async def shop(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Shop]:
    settings = Settings(
        database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,), reconcile_seconds=0.5
    )
    async with application(settings) as app, served(app, header_timeout_seconds=10) as port:
        async with aiohttp.ClientSession() as client:
            opened = Shop(f"http://127.0.0.1:{port}", client)
            await opened.ask("POST", "/api/coupons", {"name": "spring", "amount": 5, "type": "welcome"})
            yield opened


async def test_a_code_from_its_file_to_its_redemption(shop: Shop) -> None:
    status, added = await shop.add("code,expires_at\r\n가나다-1,2126-01-01T00:00:00+09:00\r\nB-2\r\n".encode())
    assert (status, added) == (200, {"added": 2, "rejected_count": 0, "rejected": []})
    status, mine = await shop.claim(user_id="ada", coupon_name="spring")
    assert (status, mine["code"]) == (201, "가나다-1")
    assert (await shop.ask("GET", f"/api/claims/{mine['id']}"))[1] == mine
    status, again = await shop.claim(user_id="ada", coupon_name="spring")
    assert (status, again["claim"]["code"]) == (409, "가나다-1")
    status, code = await shop.ask("GET", "/api/codes/가나다-1")
    assert (status, code["state"], code["claim_id"]) == (200, "claimed", mine["id"])
    status, redeemed = await shop.ask("POST", "/api/codes/가나다-1/redeem")
    assert (status, redeemed["state"], redeemed["expires_at"]) == (200, "redeemed", "2125-12-31T15:00:00Z")
    status, problem = await shop.ask("POST", "/api/codes/가나다-1/redeem")
    assert (status, problem["type"]) == (409, "/problems/already-redeemed")
    status, problem = await shop.ask("POST", "/api/codes/B-2/redeem")
    assert (status, problem["type"]) == (409, "/problems/code-not-claimed")
    status, problem = await shop.ask("DELETE", f"/api/claims/{mine['id']}", {"reason": "changed my mind"})
    assert (status, problem["type"]) == (409, "/problems/already-redeemed")
    status, problem = await shop.ask("PATCH", "/api/coupons/spring", {"amount": 9})
    assert (status, problem["type"]) == (409, "/problems/amount-is-codes")
    status, coupon = await shop.ask("GET", "/api/coupons/spring")
    assert (coupon["amount"], coupon["remaining_amount"]) == (2, 1)


async def test_a_code_is_redeemed_only_for_the_user_that_is_named(shop: Shop) -> None:
    await shop.add(b"A-1\nA-2\n")
    await shop.claim(user_id="alice", coupon_name="spring")
    path = "/api/codes/A-1/redeem"
    key = {"Idempotency-Key": "k"}
    status, problem = await shop.ask("POST", path, {"user_id": "mallory"}, **key)
    assert (status, problem["type"]) == (403, "/problems/not-your-claim")
    assert (await shop.ask("POST", path, {"user_id": "a b"}))[0] == 400
    assert (await shop.ask("GET", "/api/codes/A-1"))[1]["state"] == "claimed"
    status, redeemed = await shop.ask("POST", path, {"user_id": "alice"}, **key)
    assert (status, redeemed["state"]) == (200, "redeemed")
    assert (await shop.ask("POST", path, {"user_id": "alice"}, **key))[0] == 200
    assert (await shop.ask("POST", path, None, **key))[1]["type"] == "/problems/key-reused"
    # Whoever does not have it is told the same, whatever became of it.
    assert (await shop.ask("POST", path, {"user_id": "mallory"}))[0] == 403
    status, problem = await shop.ask("POST", "/api/codes/A-2/redeem", {"user_id": "mallory"})
    assert (status, problem["type"]) == (409, "/problems/code-not-claimed")


async def test_rows_that_cannot_be_added_are_named_with_their_numbers(shop: Shop) -> None:
    rows = b'{"code": "A-1"}\n\n{"code": "A-1"}\nnonsense\n{"code": "A-2", "expires_at": "soon"}\n{"code": "A-3"}'
    refused = [
        {"row": 3, "code": "A-1", "reason": "duplicate"},
        {"row": 4, "code": None, "reason": "bad-row"},
        {"row": 5, "code": "A-2", "reason": "bad-expiry"},
    ]
    status, problem = await shop.add(rows, media_type=NDJSON)
    assert (status, problem["type"], problem["rejected"]) == (422, "/problems/rows-refused", refused)
    status, added = await shop.add(rows, "?atomic=false", NDJSON)
    assert (status, added) == (200, {"added": 2, "rejected_count": 3, "rejected": refused})


async def test_a_large_file_is_added_within_seconds(shop: Shop) -> None:
    rows = "\n".join(f"LARGE-{number}" for number in range(_FILE_ROWS)).encode()
    seconds = []
    for query in ("", "?atomic=false"):
        began = time.monotonic()
        status, added = await shop.add(rows.replace(b"LARGE", b"L" + query[8:9].encode()), query)
        seconds.append(time.monotonic() - began)
        assert (status, added["added"]) == (200, _FILE_ROWS)
    print(f"{_FILE_ROWS} rows: {seconds[0]:.2f} s all or none, {seconds[1]:.2f} s one by one")  # noqa: T201 - with -s
    assert max(seconds) < max(5.0, _FILE_ROWS / 2000)


async def test_what_is_sent_again_under_its_key_is_told_again_and_done_once(shop: Shop) -> None:
    asked = (("POST", "/api/coupons/spring/codes", b"K-1\n", CSV),)
    for method, path, body, media_type in asked:
        first = await shop.ask(method, path, body, **{"Content-Type": media_type, "Idempotency-Key": "k-1"})
        assert first == await shop.ask(method, path, body, **{"Content-Type": media_type, "Idempotency-Key": "k-1"})
        assert first[0] == 200
    large = "".join(f"L-{number}\n" for number in range(6000)).encode()
    for file in (b"K-2\n", large):
        status, problem = await shop.add(file, "?atomic=false", **{"Idempotency-Key": "k-1"})
        assert (status, problem["type"]) == (422, "/problems/key-reused")
    made = {"count": 10, "pattern": "AAAA-9999"}
    for _ in range(2):
        status, _ = await shop.ask("POST", "/api/coupons/spring/codes/generate", made, **{"Idempotency-Key": "k-2"})
        assert status == 200
    assert (await shop.ask("GET", "/api/coupons/spring"))[1]["amount"] == 11
    await shop.claim(user_id="ada", coupon_name="spring")
    for _ in range(2):
        status, code = await shop.ask("POST", "/api/codes/K-1/redeem", **{"Idempotency-Key": "k-3"})
        assert (status, code["state"]) == (200, "redeemed")
    assert (await shop.ask("POST", "/api/codes/K-1/redeem"))[0] == 409


async def test_the_counts_follow_and_what_redis_lost_or_has_wrong_is_set_right(
    shop: Shop, redis_urls: tuple[str, ...]
) -> None:
    await shop.add(b"A-1\nA-2\nA-3\n")
    claims = [(await shop.claim(user_id=user, coupon_name="spring"))[1] for user in ("ada", "bob")]
    await shop.ask("POST", f"/api/codes/{claims[0]['code']}/redeem")
    await shop.ask("DELETE", f"/api/claims/{claims[1]['id']}", {"reason": "because"})
    right = {"type": "welcome", "uploaded": 3, "claimed": 1, "redeemed": 1, "voided": 1}

    async def are_right() -> bool:
        kept = [await _kept(url) for url in redis_urls]
        return {name: str(right[name]) for name in ("uploaded", "claimed", "redeemed", "voided")} in kept

    await until(are_right, "the counts are in Redis")
    assert await shop.ask("GET", "/api/codes?type=welcome") == (200, right)
    assert (await shop.ask("GET", "/api/codes"))[1]["uploaded"] == 0
    for url in redis_urls:
        async with Redis.from_url(url) as master:
            await master.flushall()
    assert (await shop.ask("GET", "/api/codes?type=welcome"))[1] == right
    await until(are_right, "the counts are in Redis again")
    for url in redis_urls:
        async with Redis.from_url(url) as master:
            if await master.exists("claim:codes:{welcome}"):
                await master.hset("claim:codes:{welcome}", "claimed", 99)
    await until(are_right, "a count that was wrong is right")


async def _kept(url: str) -> dict[str, str]:
    async with Redis.from_url(url, decode_responses=True) as master:
        found = await master.hgetall("claim:codes:{welcome}")
    return {str(name): str(value) for name, value in found.items() if name not in ("begun", "number")}


async def test_a_claim_by_type_is_given_the_oldest_coupon_that_has_a_unit(shop: Shop) -> None:
    for name, amount in (("second", 1), ("third", 1)):
        await shop.ask("POST", "/api/coupons", {"name": name, "amount": amount, "type": "welcome"})
    await shop.ask("POST", "/api/coupons", {"name": "other", "amount": 1})
    await shop.ask("PATCH", "/api/coupons/spring", {"paused": True})
    given = [await shop.claim(user_id=f"u{n}", type="welcome") for n in range(3)]
    assert [(status, body.get("coupon_name")) for status, body in given[:2]] == [(201, "second"), (201, "third")]
    assert (given[2][0], given[2][1]["type"]) == (409, "/problems/sold-out")
    status, claim = await shop.claim(user_id="u9", type=None)
    assert (status, claim["coupon_name"]) == (201, "other")
    status, problem = await shop.claim(user_id="u9", type="nothing")
    assert (status, problem["type"]) == (404, "/problems/unknown-coupon")
    status, problem = await shop.claim(user_id="u9", type="welcome", coupon_name="other")
    assert (status, problem["errors"][0]["pointer"]) == (400, "#/type")


def test_rows_are_read_alike_however_the_file_is_cut() -> None:
    file = '\ufeffcode,expires_at\nA-1, 2126-01-01T00:00:00Z \n\n"B,2"\n"C-3",\nD-4,1,2\n가-5'.encode()
    whole = RowReader(CSV)
    expected = [*whole.feed(file), *whole.finish()]
    assert [(row.row, row.code, getattr(row, "reason", None)) for row in expected] == [
        (2, "A-1", None),
        (4, "", RowReason.BAD_CODE),
        (5, "C-3", None),
        (6, "", RowReason.BAD_ROW),
        (7, "가-5", None),
    ]
    for cut in range(1, len(file)):
        reader = RowReader(CSV)
        assert [*reader.feed(file[:cut]), *reader.feed(file[cut:]), *reader.finish()] == expected


@pytest.mark.parametrize(
    ("code", "expires_at", "reason"),
    [
        ("", None, RowReason.BAD_CODE),
        ("..", None, RowReason.BAD_CODE),
        ("a" * 65, None, RowReason.BAD_CODE),
        ("a\n", None, RowReason.BAD_CODE),
        (5, None, RowReason.BAD_CODE),
        ("a", 5, RowReason.BAD_EXPIRY),
        ("a", 0, RowReason.BAD_EXPIRY),
        ("a", "2126-01-01", RowReason.BAD_EXPIRY),
        ("a", "9999-12-31T23:59:59-23:59", RowReason.BAD_EXPIRY),
    ],
)
def test_what_is_no_code_or_no_time_is_refused(code: object, expires_at: object, reason: RowReason) -> None:
    row = new_code(1, code, expires_at)
    assert isinstance(row, RefusedRow)
    assert row.reason is reason


def test_a_syllable_that_comes_in_parts_is_the_same_code() -> None:
    assert new_code(1, "\u1100\u1161-1", "") == NewCode(1, "가-1")


@pytest.mark.parametrize("pattern", ["AAAA-9999", "가가가-99", "X_9A가"])
def test_made_codes_are_different_and_of_their_pattern_and_have_no_look_alikes(pattern: str) -> None:
    assert re.fullmatch(GENERATION_PATTERN, pattern)
    count = min(20_000, possibilities(pattern) // 10)
    made = make_codes(pattern, count)
    assert len(set(made)) == count
    assert not re.search("[0O1IL2ZUBSG]", "".join(made).replace("2", ""))
    assert {len(code) for code in made} == {len(pattern)}
    assert all(isinstance(new_code(1, code, None), NewCode) for code in made[:100])
