"""Who may claim, over HTTP: rules on coupons, asking without claiming, and lists that are sent as they come."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from claimsvc.domain import AttributeRule, Campaign, EligibilityRules, ListKind, Source, StrategyName
from claimsvc.http.app import create_app
from claimsvc.identity.tokens import open_tokens
from tests.http.asking import create, get
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer

RULES: dict[str, Any] = {
    "attributes": [
        {"name": "country", "source": "request", "one_of": ["KR", "JP"]},
        {"name": "age", "source": "token", "at_least": 19},
    ],
    "holds_not": ["plenty"],
}


async def send(service: Service, method: str, path: str, **options: Any) -> tuple[int, Any]:
    options = {"headers": ADMIN, **options}
    async with service.client.request(method, service.url + path, **options) as response:
        return response.status, await response.json(content_type=None)


async def put(service: Service, data: Any, kind: str = "text/plain", **headers: str) -> tuple[int, Any]:
    sent = {**ADMIN, "Content-Type": kind, **headers}
    return await send(service, "PUT", "/api/coupons/plenty/allow-list", data=data, headers=sent)


async def test_rules_are_kept_with_the_coupon_and_shown_as_they_were_sent(service: Service) -> None:
    status, body, headers = await create(service, {"name": "ruled", "amount": 1, "rules": RULES})
    assert (status, body["rules"]) == (201, RULES)
    assert (await get(service, headers["Location"]))[1]["rules"] == RULES
    status, body = await send(service, "PATCH", "/api/coupons/ruled", json={"rules": {"holds": ["last"]}})
    assert (status, body["rules"]) == (200, {"holds": ["last"]})
    for nothing in ('{"rules": {}}', '{"rules": null}'):
        headers = {**ADMIN, "Content-Type": "application/json"}
        status, body = await send(service, "PATCH", "/api/coupons/ruled", data=nothing, headers=headers)
        assert (status, body["rules"]) == (200, None)
    assert (body["has_allow_list"], body["has_deny_list"]) == (False, False)


@pytest.mark.parametrize(
    ("rules", "pointer"),
    [
        ({"unknown": []}, "#/rules/unknown"),
        ({"holds": [".."]}, "#/rules/holds/0"),
        ({"holds": ["a"] * 21}, "#/rules/holds"),
        ({"attributes": [{}]}, "#/rules/attributes/0/name"),
        ({"attributes": [{"name": "a b"}]}, "#/rules/attributes/0/name"),
        ({"attributes": [{"name": "a", "source": "elsewhere"}]}, "#/rules/attributes/0/source"),
        ({"attributes": [{"name": "a", "one_of": []}]}, "#/rules/attributes/0/one_of"),
        ({"attributes": [{"name": "a", "at_least": "19"}]}, "#/rules/attributes/0/at_least"),
        ({"attributes": [{"name": "a", "at_least": True}]}, "#/rules/attributes/0/at_least"),
        ({"attributes": [{"name": "a", "one_of": [{"b": 1}]}]}, "#/rules/attributes/0/one_of/0"),
        ({"attributes": [{"name": "a", "one_of": ["\x00"]}]}, "#/rules/attributes/0/one_of/0"),
        ({"attributes": [{"name": "a", "one_of": ["x" * 255] * 100}]}, "#/rules"),
        ([], "#/rules"),
    ],
)
async def test_rules_that_mean_nothing_are_refused_where_they_are_wrong(
    service: Service, rules: Any, pointer: str
) -> None:
    status, problem, _ = await create(service, {"name": "ruled", "amount": 1, "rules": rules})
    assert (status, problem["type"]) == (400, "/problems/bad-request")
    assert any(error["pointer"].startswith(pointer) for error in problem["errors"]), problem


async def test_numbers_that_no_machine_holds_are_no_trouble(service: Service) -> None:
    for number in (10**20, -(10**20), 1e300):
        rules = {"attributes": [{"name": "a", "one_of": [number]}]}
        assert (await create(service, {"name": "ruled", "amount": 1, "rules": rules}))[0] == 400
        assert (await create(service, {"name": "ruled", "amount": 1, "metadata": {"a": number}}))[0] == 400
        body = {"user_id": "ann", "coupon_name": "plenty", "attributes": {"a": number}}
        assert (await send(service, "POST", "/api/coupons/claim", json=body, headers={"Idempotency-Key": "k"}))[
            0
        ] == 400
    # PostgreSQL writes it with three hundred digits.
    for few, status in ((20, 201), (40, 400)):
        metadata = {f"a{number}": 1e-300 for number in range(few)}
        assert (await create(service, {"name": "small", "amount": 1, "metadata": metadata}))[0] == status


@pytest.mark.parametrize(
    "attributes",
    [
        *([], "a", {"a b": 1}, {"": 1}, {"a" * 65: 1}, {"a": None}, {"a": [1]}, {"a": "x" * 256}, {"a": "\x00"}),
        {f"a{number}": 1 for number in range(21)},
    ],
)
async def test_attributes_that_are_none_are_refused(service: Service, attributes: Any) -> None:
    for path, names in (("claim", {"coupon_name": "plenty"}), ("plenty/eligibility", {})):
        body = {"user_id": "ann", "attributes": attributes, **names}
        status, problem = await send(service, "POST", f"/api/coupons/{path}", json=body)
        assert (status, problem["type"]) == (400, "/problems/bad-request")
        # A name that is not fit to be shown is not.
        assert problem["errors"][0]["pointer"].startswith("#/attributes" if "a" * 65 not in attributes else "#")


async def test_asking_says_which_rules_are_not_met_and_needs_no_key(service: Service) -> None:
    await create(service, {"name": "ruled", "amount": 1, "rules": RULES})
    body = {"user_id": "ann", "attributes": {"country": "US"}}
    status, found = await send(service, "POST", "/api/coupons/ruled/eligibility", json=body, headers={})
    assert status == 200
    assert found["eligible"] is False
    assert [(each["code"], each["rule"]) for each in found["reasons"]] == [
        ("attribute-refused", "#/attributes/0"),
        ("attribute-missing", "#/attributes/1"),
    ]
    body = {"user_id": "ann"}
    assert await send(service, "POST", "/api/coupons/plenty/eligibility", json=body) == (
        200,
        {"eligible": True, "reasons": []},
    )
    status, problem = await send(service, "POST", "/api/coupons/no-such/eligibility", json=body)
    assert (status, problem["type"]) == (404, "/problems/unknown-coupon")


@pytest.mark.parametrize(
    ("kind", "data", "users"),
    [
        ("text/plain", b"ann\nbob\r\n\r\nann\n", {"ann", "bob"}),
        ("text/plain; charset=utf-8", b"\xef\xbb\xbfann", {"ann"}),
        ("text/plain", b"a,b\n" + b"x" * 255, {"a,b", "x" * 255}),
        ("text/csv", b'city,user_id\nSeoul,ann\n"a","b,""c"', {"ann", 'b,"c'}),
        ("text/csv", b"\xef\xbb\xbfuser_id\r\nann\r\n", {"ann"}),
        ("application/x-ndjson", b'{"user_id": "ann"}\n\n{"user_id":"b\\u006fb"}', {"ann", "bob"}),
    ],
)
async def test_a_list_is_one_user_a_line(service: Service, kind: str, data: bytes, users: set[str]) -> None:
    status, body = await put(service, data, kind)
    assert (status, body) == (200, {"coupon_name": "plenty", "kind": "allow", "users": len(users)})
    assert service.store.lists["plenty", ListKind.ALLOW] == users
    assert service.store.entries_kept[-1].action == "allow-list.replace"
    assert service.store.entries_kept[-1].actor.startswith("admin-key:")


@pytest.mark.parametrize(
    ("kind", "data", "detail"),
    [
        ("text/plain", b"", "The list has no users"),
        ("text/plain", b"\n\r\n", "The list has no users"),
        ("text/plain", b"ann\nb b\n", "Line 2: a user id is"),
        ("text/plain", b"ann\n\xff\n", "Line 2: a user id is"),
        ("text/plain", b"x" * 256, "Line 1: a user id is"),
        ("text/plain", b"ann\n" + b"x" * 100_000, "Line 2: the line is longer than 4096"),
        ("text/csv", b"user\nann\n", "Line 1: the first line of CSV must name the columns"),
        ("text/csv", b"user_id\n", "The list has no users"),
        ("text/csv", b"city,user_id\nSeoul\n", "Line 2: the row has no column `user_id`"),
        ("text/csv", b'user_id\n"ann\n', "Line 2: the line is not CSV"),
        ("text/csv", b"user_id\n\xff\n", "Line 2: the line is not UTF-8"),
        ("application/x-ndjson", b'{"user_id": "ann"}\n{"user_id": 5}', "Line 2: the line must be an object"),
        ("application/x-ndjson", b'{"user_id": "a", "user_id": "b"}', "Line 1: the line must be an object"),
        ("application/x-ndjson", b"[" * 4000, "Line 1: the line must be an object"),
    ],
)
async def test_a_list_with_a_bad_line_is_refused_whole_and_says_which(
    service: Service, kind: str, data: bytes, detail: str
) -> None:
    status, problem = await put(service, data, kind)
    assert (status, problem["type"]) == (400, "/problems/bad-request")
    assert problem["errors"][0]["detail"].startswith(detail)
    assert not service.store.lists
    assert await service.is_healthy()


async def test_only_the_first_twenty_bad_lines_are_told(service: Service) -> None:
    status, problem = await put(service, b"b b\n" * 1000)
    assert (status, len(problem["errors"])) == (400, 20)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "text/plain; charset=utf-16"}, 415),
        ({"Content-Type": "text/plain", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "text/plain", "Authorization": "Bearer wrong"}, 401),
    ],
)
async def test_what_is_no_list_or_of_nobody_who_may_is_refused(
    service: Service, headers: dict[str, str], status: int
) -> None:
    sent = {**ADMIN, **headers}
    answer = await send(service, "PUT", "/api/coupons/plenty/deny-list", data=gzip.compress(b"ann"), headers=sent)
    assert answer[0] == status
    assert not service.store.lists


async def test_a_list_may_be_longer_than_any_other_body_also_where_it_is_asked_first(service: Service) -> None:
    """curl asks with `Expect: 100-continue` before it sends a body of more than a megabyte."""
    users = [f"user-{number}" for number in range(100_000)]
    data = "\n".join(users).encode()
    for headers in ({}, {"Expect": "100-continue"}):
        status, body = await put(service, io.BytesIO(data), **headers)
        assert (status, body["users"]) == (200, len(users))
    claim = {"Content-Type": "application/json", "Expect": "100-continue"}
    status, problem = await send(service, "POST", "/api/coupons/claim", data=io.BytesIO(data), headers=claim)
    assert (status, problem["type"]) == (413, "/problems/body-too-large")


async def test_a_list_that_is_too_large_or_comes_to_a_halt_is_refused(service: Service) -> None:
    async def halting() -> AsyncIterator[bytes]:
        yield b"ann\n"
        await asyncio.sleep(5)

    status, problem = await put(service, halting())
    assert (status, problem["type"]) == (408, "/problems/request-timeout")
    status, problem = await put(service, b"", **{"Content-Length": str(65 * 1024 * 1024), "Expect": "100-continue"})
    assert (status, problem["type"]) == (413, "/problems/body-too-large")
    assert not service.store.lists
    assert await service.is_healthy()


async def test_a_list_is_taken_away_and_taking_it_away_again_changes_nothing(service: Service) -> None:
    await put(service, b"ann")
    for _ in range(2):
        assert await send(service, "DELETE", "/api/coupons/plenty/allow-list") == (
            200,
            {"coupon_name": "plenty", "kind": "allow", "users": None},
        )
    assert not service.store.lists
    as_lines = {"headers": {**ADMIN, "Content-Type": "text/plain"}, "data": b"ann"}
    for method, options in (("DELETE", {}), ("PUT", as_lines)):
        status, problem = await send(service, method, "/api/coupons/no-such/deny-list", **options)
        assert (status, problem["type"]) == (404, "/problems/unknown-coupon")


async def test_a_rule_about_the_token_is_met_by_what_the_user_s_token_says(tmp_path: Path) -> None:
    issuer, store = Issuer(), MemoryStore()
    rules = EligibilityRules(
        (AttributeRule("tier", Source.TOKEN, one_of=("gold",)), AttributeRule("groups", Source.TOKEN))
    )
    await store.create_coupon("spring", 5, StrategyName.REDLOCK, Campaign(rules=rules))
    jwks = tmp_path / "keys.json"
    jwks.write_bytes(orjson.dumps({"keys": [issuer.public()]}))
    token = bearer(issuer.token("ann", tier="gold", groups=["new", {"a": 1}], nested={"a": 1}))
    async with open_tokens(str(jwks), issuer=ISSUER, audience=AUDIENCE) as tokens:
        app = create_app(memory_services(store, Observations(), tokens=tokens))
        async with served(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=token) as client:
            async with client.post("/api/coupons/spring/eligibility", json={}) as response:
                assert (response.status, await response.json()) == (200, {"eligible": True, "reasons": []})
            async with client.post("/api/coupons/spring/eligibility", json={"user_id": "eve"}) as response:
                assert response.status == 403
            async with client.post("/api/coupons/claim", json={"coupon_name": "spring"}) as response:
                assert response.status == 201
    [options] = store.wants
    assert options is not None
    assert (options.token["tier"], options.token["groups"], "nested" in options.token) == ("gold", ("new",), False)
