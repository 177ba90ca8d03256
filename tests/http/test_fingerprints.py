"""A keyed request is the same as another if what was sent is, whatever its form and whatever a version makes of it."""

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from claimsvc.domain import NewCode, RefusedRow, RowReason
from claimsvc.http.framework.bodies import parse_body
from claimsvc.http.framework.fingerprints import fingerprint, former_fingerprint
from claimsvc.http.resources.codes import routes as code_routes
from claimsvc.http.routes import ROUTES
from claimsvc.representations.strict_json import decode_object
from tests.http.memory_services import Service
from tests.support.admin import ADMIN

_CLAIM = "/api/coupons/claim"
# Digests that the version before made of these requests.
_FORMER: Sequence[tuple[str, str, dict[str, Any] | None, str]] = [
    (
        "claim_coupon",
        _CLAIM,
        {"user_id": "alice", "coupon_name": "demo"},
        "202d64db94c272a7d55ea6f4b2b86b5fc6f9630a114be924100214c51b66834b",
    ),
    (
        "claim_coupon",
        _CLAIM,
        {"type": "welcome", "user_id": "alice", "hold_seconds": 60.0},
        "99b4cd8429daa842c84946b0abbc17824c45c6873171678167c15de48d9b908b",
    ),
    (
        "claim_coupon",
        _CLAIM,
        {"user_id": "alice", "coupon_name": "demo", "attributes": {"country": "KR", "age": 19, "score": 1.5}},
        "09240b127e71931f8edb4ec850eea1b7b5006f4ae50a3681c3079a8f246dd77e",
    ),
    (
        "create_coupon",
        "/api/coupons",
        {"name": "demo", "amount": 100},
        "435f80d5468ad72faac955d014e29abd48ea719998d71006bc9e78d3e1c6fa4c",
    ),
    (
        "create_coupon",
        "/api/coupons",
        {
            "name": "demo",
            "amount": 100.0,
            "strategy": "row_lock",
            "starts_at": "2030-01-01T00:00:00Z",
            "ends_at": "2030-02-01T00:00:00.5+09:00",
            "paused": True,
            "per_user_limit": 3,
            "type": "welcome",
            "benefit": {"percent_off": 15},
            "metadata": {"channel": "app", "n": 1.25, "x": None},
            "rules": {
                "attributes": [
                    {"name": "country", "one_of": ["KR", "JP"]},
                    {"name": "age", "source": "token", "at_least": 19},
                ],
                "holds": ["a"],
                "holds_not": ["b"],
            },
        },
        "9571a0db4e6b372c9e82df0e561670c0420079aadb161e9d9042622581ce3dd1",
    ),
    (
        "create_coupon",
        "/api/coupons",
        {"name": "demo", "amount": 1, "benefit": {"amount_off": 5000, "currency": "KRW"}},
        "3b5920cebc7a1ea81284abe300dcf303f79bbc4993eacd37c7b1179e601dcf2a",
    ),
    (
        "create_coupon",
        "/api/coupons",
        {"name": "demo", "amount": 1, "benefit": {"text": "a free coffee"}},
        "c057b706d85867fa2fc7489fb05e9c412bf9fe3fd9873707b6639dcd219493f2",
    ),
    (
        "archive_coupon",
        "/api/coupons/demo/archive",
        None,
        "b9afefd73f508e95f3c60e949a1c04db5580aadc954cb7a1a0cc12f81d8eef54",
    ),
    (
        "generate_codes",
        "/api/coupons/demo/codes/generate",
        {"count": 5, "pattern": "AAAA-9999", "expires_at": "2030-01-01T00:00:00Z"},
        "58f738e28bad0b19342c71c794ce5cc05a0d50bb1a1473f8d4ba2f8876fd4fe0",
    ),
    (
        "redeem_code",
        "/api/codes/SPRING-1/redeem",
        {"user_id": "alice"},
        "c460ab42553ea2347964674faf1502fddb3655777c7245c356be2ff065aa5607",
    ),
    (
        "check_eligibility",
        "/api/coupons/demo/eligibility",
        {"user_id": "alice", "attributes": {"a": True}},
        "185316806ecc9e4dcc51b56b37ce7a5dc1bc4192b8dbf2a368c2653f08bd342a",
    ),
]


def _validated(operation: str, body: dict[str, Any] | None) -> tuple[str, BaseModel | None]:
    [route] = [route for route in ROUTES if route.operation_id == operation]
    model = route.model("body")
    return route.method, None if model is None else parse_body(model, orjson.dumps(body))


@pytest.mark.parametrize(("operation", "path", "body", "digest"), _FORMER)
def test_what_the_version_before_stored_is_found(
    operation: str, path: str, body: dict[str, Any] | None, digest: str
) -> None:
    """If a schema got a field since, this fails unless the former fields of its body are listed."""
    method, validated = _validated(operation, body)
    assert former_fingerprint(method, path, validated).hex() == digest


def test_the_rows_of_a_file_have_the_digest_that_they_had() -> None:
    rows: list[NewCode | RefusedRow] = [
        NewCode(1, "가-1", datetime(2030, 1, 1, tzinfo=UTC)),
        NewCode(2, "A'1"),
        RefusedRow(3, "", RowReason.BAD_ROW),
    ]
    expected = code_routes._digest([rows])
    assert code_routes._digest([rows[:1], rows[1:]]) == expected
    # What they were called before rows had terms.
    former = (
        "NewCode(row=1, code='가-1', expires_at=datetime.datetime(2030, 1, 1, 0, 0, tzinfo=datetime.timezone.utc))"
        """NewCode(row=2, code="A'1", expires_at=None)"""
        "RefusedRow(row=3, code='', reason=<RowReason.BAD_ROW: 'bad-row'>)"
    )
    assert expected == hashlib.sha256(former.encode()).hexdigest()
    digests = {
        code_routes._digest([[NewCode(1, "A", None, own, benefit)]])
        for own in (None, "vip", "plain")
        for benefit in (None, {"percent_off": 5.0}, {"percent_off": 6.0}, {"text": "vip"})
    }
    assert len(digests) == 12


_scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.floats(-1e6, 1e6, width=32)
)
_documents = st.dictionaries(
    st.text(max_size=5), _scalars | st.dictionaries(st.text(max_size=5), _scalars, max_size=3), max_size=5
)


def _written(document: dict[str, Any], chance: random.Random) -> str:
    """The document as another program might write it."""
    members = list(document.items())
    chance.shuffle(members)
    parts = []
    for name, value in members:
        text = orjson.dumps(value).decode()
        if isinstance(value, dict):
            text = _written(value, chance)
        elif isinstance(value, int) and not isinstance(value, bool):
            text = chance.choice([text, f"{value}.0", f"{value}e0"])
        parts.append(f"{chance.choice(['', ' '])}{orjson.dumps(name).decode()} :{text}")
    return "{" + ",\n".join(parts) + "}"


@given(_documents, st.randoms(use_true_random=False))
def test_the_form_of_a_document_does_not_matter_and_its_content_does(
    document: dict[str, Any], chance: random.Random
) -> None:
    sent = decode_object(_written(document, chance).encode())
    mine = fingerprint("POST", _CLAIM, decode_object(orjson.dumps(document)))
    assert fingerprint("POST", _CLAIM, sent) == mine
    assert len(mine) == 33
    assert fingerprint("POST", _CLAIM, {**sent, "another member": None}) != mine
    assert fingerprint("POST", "/api/coupons", sent) != mine


async def _post(service: Service, body: str) -> tuple[int, str | None, Any]:
    headers = {**ADMIN, "Content-Type": "application/json", "Idempotency-Key": "k"}
    async with service.client.post(f"{service.url}/api/coupons", data=body, headers=headers) as response:
        return response.status, response.headers.get("Idempotency-Replayed"), await response.json(content_type=None)


async def test_a_retry_in_another_form_is_told_the_same_and_one_with_a_default_is_another(service: Service) -> None:
    status, replayed, made = await _post(service, '{"name": "new", "amount": 5}')
    assert (status, replayed) == (201, None)
    assert await _post(service, '{"amount":5.0,"name":"new"}') == (201, "true", made)
    for other in ('{"name":"new","amount":5,"paused":false}', '{"name":"new","amount":6}'):
        status, _, problem = await _post(service, other)
        assert (status, problem["type"]) == (422, "/problems/key-reused")


async def test_a_retry_across_the_upgrade_is_told_what_the_version_before_answered(
    service_url: str, database_url: str
) -> None:
    """The answer stands in the database as that version wrote it: a claim that this one would refuse."""
    stored = (
        "INSERT INTO idempotent_answers (caller, key, fingerprint, answer, request_id) VALUES "
        "('anybody', 'k', %s, '{\"kind\": \"sold-out\", \"value\": {}}', 'before')"
    )
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(stored, [bytes.fromhex(_FORMER[1][3])])
    async with aiohttp.ClientSession() as client:
        for body, status, slug in (
            ({"user_id": "alice", "type": "welcome", "hold_seconds": 60}, 409, "sold-out"),
            ({"user_id": "alice", "type": "welcome", "hold_seconds": 61}, 422, "key-reused"),
        ):
            async with client.post(service_url + _CLAIM, json=body, headers={"Idempotency-Key": "k"}) as response:
                problem = await response.json(content_type=None)
                assert (response.status, problem["type"]) == (status, f"/problems/{slug}")
                if status == 409:
                    assert (response.headers["Idempotency-Replayed"], problem["request_id"]) == ("true", "before")
