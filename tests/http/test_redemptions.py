"""Redeeming claims and codes over HTTP, on the whole service: who may, how often, and what is answered otherwise."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import CODE_PATTERN, Code, CodeState, Scope
from claimsvc.http.resources.codes.schemas import CodesQuery, code_cursor
from claimsvc.representations.code_files import CSV
from tests.http.till import BASE, Till, open_till, till
from tests.support.admin import ADMIN

__all__ = ["open_till", "till"]


async def test_a_claim_is_redeemed_once_by_its_user_and_by_nobody_else(till: Till) -> None:
    await till.offer("C-1\nC-2\n")
    mine = await till.claim("alice")
    path = f"/api/claims/{mine['id']}"
    assert await till.problem("POST", f"{path}/redeem", by=till.user("mallory")) == (403, "not-your-claim")
    assert await till.problem("POST", f"{path}/redeem", by={}) == (401, "unauthorized")
    assert await till.problem("POST", f"{path}/redeem", by=await till.key(Scope.CLAIMS_WRITE)) == (403, "forbidden")
    status, redeemed = await till.ask("POST", f"{path}/redeem", by=till.user("alice"))
    assert (status, redeemed["code"], redeemed["redeemed_count"], redeemed["uses"]) == (200, "C-1", 1, 1)
    assert {name: redeemed[name] for name in mine} == mine
    assert await till.problem("POST", f"{path}/redeem", by=till.user("alice")) == (409, "already-redeemed")
    assert await till.problem("POST", "/api/codes/C-1/redeem") == (409, "already-redeemed")
    assert await till.problem("DELETE", path, by=till.user("alice")) == (409, "already-redeemed")
    for by in (till.user("alice"), await till.key(Scope.CODES_READ)):
        assert await till.problem("POST", f"{path}/unredeem", {"reason": "why"}, by) == (403, "forbidden")
    for body in ({}, {"reason": ""}, {"reason": "a\nb"}, {"why": "x"}):
        assert (await till.ask("POST", f"{path}/unredeem", body))[0] == 400
    till_key = await till.key(Scope.CODES_REDEEM)
    status, back = await till.ask("POST", f"{path}/unredeem", {"reason": "the card was refused"}, till_key)
    assert (status, back["state"], back["redeemed_at"], back["redeemed_count"]) == (200, "active", None, 0)
    assert (await till.ask("GET", "/api/codes/C-1"))[1]["state"] == "claimed"
    assert await till.problem("POST", f"{path}/unredeem", {"reason": "again"}) == (409, "not-redeemed")
    status, page = await till.ask("GET", f"/api/audit?subject_type=claim&subject={mine['id']}")
    acts = [(each["action"], each["reason"], each["actor"].split(":")[0]) for each in page["items"]]
    assert acts == [
        ("claim.unredeem", "the card was refused", "key"),
        ("claim.redeem", "", "claimant"),
        ("claim.make", "", "claimant"),
    ]


async def test_without_tokens_redeeming_a_claim_needs_a_key(open_till: Till) -> None:
    await open_till.offer()
    mine = await open_till.claim("alice")
    path = f"/api/claims/{mine['id']}/redeem"
    assert await open_till.problem("POST", path, by={}) == (401, "unauthorized")
    assert (await open_till.ask("POST", path))[0] == 200


async def test_what_has_ended_is_gone_and_what_is_held_is_not_there_yet(till: Till) -> None:
    await till.offer()
    held = await till.claim("alice", hold_seconds=60)
    path = f"/api/claims/{held['id']}"
    assert await till.problem("POST", f"{path}/redeem") == (409, "claim-not-confirmed")
    assert (await till.ask("DELETE", path))[0] == 200
    status, problem = await till.ask("POST", f"{path}/redeem")
    assert (status, problem["type"], problem["claim"]["state"]) == (410, "/problems/claim-ended", "cancelled")
    unknown = "/api/claims/019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"
    for body, action in ((None, "redeem"), ({"reason": "why"}, "unredeem")):
        assert await till.problem("POST", f"{unknown}/{action}", body) == (404, "unknown-claim")


@pytest.mark.parametrize("strategy", ["redlock", "row_lock", "counter"])
async def test_a_code_of_several_uses_is_redeemed_that_often(open_till: Till, strategy: str) -> None:
    await open_till.offer("C-1\nC-2\n", "?uses=3", strategy=strategy, uses=2)
    mine = await open_till.claim("alice")
    done = await asyncio.gather(*(open_till.ask("POST", "/api/codes/c-1/redeem") for _ in range(10)))
    assert Counter(status for status, _ in done) == {200: 3, 409: 7}
    assert sorted(body["redeemed_count"] for status, body in done if status == 200) == [1, 2, 3]
    status, code = await open_till.ask("GET", "/api/codes/C-1")
    assert (code["state"], code["uses"], code["redeemed_count"], code["user_id"]) == ("redeemed", 3, 3, "alice")
    status, back = await open_till.ask("POST", "/api/codes/C-1/unredeem", {"reason": "it fell through"})
    assert (status, back["state"], back["redeemed_count"]) == (200, "claimed", 2)
    key = {"Idempotency-Key": "k"}
    for _ in range(2):
        status, again = await open_till.ask("POST", f"/api/claims/{mine['id']}/redeem", headers=key)
        assert (status, again["redeemed_count"]) == (200, 3)
    assert await open_till.problem("POST", "/api/codes/C-1/redeem") == (409, "already-redeemed")
    assert (await open_till.ask("GET", BASE))[1]["uses"] == 2
    status, generated = await open_till.ask(
        "POST", f"{BASE}/codes/generate", {"count": 1, "pattern": "AAAA", "uses": 9}
    )
    assert (status, generated["added"]) == (200, 1)
    uses = [each["uses"] for each in (await open_till.ask("GET", f"{BASE}/codes"))[1]["items"]]
    assert sorted(uses) == [3, 3, 9]
    for wrong in ("0", "1001", "x", "1.0", "01234567890"):
        status, _ = await open_till.ask("POST", f"{BASE}/codes?uses={wrong}", b"D-1", headers={"Content-Type": CSV})
        assert status == 400
    assert (await open_till.ask("PATCH", BASE, {"uses": 0}))[0] == 400
    assert (await open_till.ask("PATCH", BASE, {"uses": 5}))[1]["uses"] == 5


async def test_validating_says_what_redeeming_would_and_changes_nothing(till: Till) -> None:
    await till.offer("C-1\nC-2,2126-01-01T00:00:00Z\nC-3\n")
    mine = await till.claim("alice")
    await till.claim("bob")

    async def told(query: str = "", code: str = "c-1", by: dict[str, str] = ADMIN) -> tuple[bool, str | None]:
        status, body = await till.ask("GET", f"/api/codes/{code}/validate{query}", by=by)
        assert status == 200, body
        return body["redeemable"], body["problem"] and body["problem"]["type"].removeprefix("/problems/")

    assert await told() == await told("?user_id=alice") == await told(by=till.user("alice")) == (True, None)
    assert await told("?user_id=alice", by=till.user("alice")) == (True, None)
    assert await told("?user_id=mallory") == (False, "not-your-claim")
    assert await told(code="C-3") == (False, "code-not-claimed")
    # A user finds nothing by guessing: what is not theirs is not there.
    for code in ("C-1", "C-3", "none"):
        asked = await till.problem("GET", f"/api/codes/{code}/validate", by=till.user("mallory"))
        assert asked == (404, "unknown-code")
    asked = await till.problem("GET", "/api/codes/C-1/validate?user_id=alice", by=till.user("mallory"))
    assert asked == (403, "not-your-claim")
    assert (await till.ask("GET", "/api/codes/C-1/validate?user=alice"))[0] == 400
    assert await till.problem("GET", "/api/codes/C-1/validate", by=await till.key(Scope.CODES_READ)) == (
        403,
        "forbidden",
    )
    status, redeemed = await till.ask("POST", "/api/codes/C-1/redeem", {"user_id": "alice"})
    assert (status, redeemed["claim_id"], redeemed["redeemed_count"]) == (200, mine["id"], 1)
    assert await told() == (False, "already-redeemed")


async def test_a_coupon_s_codes_are_listed_in_pages(till: Till) -> None:
    codes = ["a", "B-1", "b-1", "가나", "힣", "...x", "z" * 64]
    await till.offer("\n".join(codes))
    await till.claim("alice")
    found: list[Any] = []
    path = f"{BASE}/codes?limit=2"
    while path:
        status, page = await till.ask("GET", path)
        assert status == 200
        found += page["items"]
        path = f"{BASE}/codes?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert [each["code"] for each in found] == sorted(codes, key=str.encode)
    assert [(each["state"], each["user_id"]) for each in found if each["code"] in "aB"] == [("claimed", "alice")]
    status, page = await till.ask("GET", f"{BASE}/codes", by=await till.key(Scope.CODES_READ))
    assert "user_id" not in page["items"][0]
    assert await till.problem("GET", f"{BASE}/codes", by=await till.key(Scope.CLAIMS_READ)) == (403, "forbidden")
    assert await till.problem("GET", f"{BASE}/codes", by=till.user("alice")) == (403, "forbidden")
    assert await till.problem("GET", "/api/coupons/none/codes") == (404, "unknown-coupon")
    for cursor in ("ff", "eaaf80", "c3a9", "6", "ED9EA4", "eab0"):
        assert (await till.ask("GET", f"{BASE}/codes?cursor={cursor}"))[0] == 400


@given(st.from_regex(CODE_PATTERN, fullmatch=True).filter(lambda code: len(code) <= 64))
def test_the_cursor_after_any_code_is_understood(code: str) -> None:
    cursor = code_cursor(Code(code, "spring", CodeState.FREE))
    assert CodesQuery.model_validate({"cursor": cursor}).after() == code


async def test_wrong_uses_are_told_by_their_rule(open_till: Till) -> None:
    await open_till.offer()
    rule = "Must be an integer from 1 to 1000"
    status, problem = await open_till.ask("POST", f"{BASE}/codes?uses=x", b"D-1", headers={"Content-Type": CSV})
    assert (status, problem["errors"][0]["parameter"]) == (400, "uses")
    assert problem["errors"][0]["detail"].startswith(rule)
    for path, body in ((BASE, {"uses": 0}), (f"{BASE}/codes/generate", {"count": 1, "pattern": "AAAA", "uses": 1001})):
        status, problem = await open_till.ask("PATCH" if path == BASE else "POST", path, body)
        [error] = problem["errors"]
        assert (status, error["pointer"], error["detail"].startswith(rule)) == (400, "#/uses", True)
    status, problem = await open_till.ask("GET", "/api/codes/D-1/validate?user_id=a%20b")
    assert problem["errors"][0]["detail"].startswith("Must be 1 to 255 visible ASCII characters")
