"""What becomes of coupons and claims, asked for wrongly: rules, ids, reasons, and keys."""

import json
from collections.abc import Iterator
from typing import Any

from tests.faults.hostile.bad_bodies import AMOUNTS, COUPON_NAMES, REASONS
from tests.faults.hostile.bad_targets import CLAIM_IDS, PATH_NAMES
from tests.faults.hostile.case import CLAIM, KEY, Case, post
from tests.support.raw_http import request

_NO_CLAIM = "/api/claims/00000000-0000-7000-8000-000000000000"
_REASON = b'{"reason": "because"}'

_TIMES: dict[str, Any] = {
    **{each: each for each in ("null within a text", "soon", "now", "2026-01-01", "2026-01-01T00:00:00", "")},
    **{each: each for each in ("1767225600", "-1", "1e9", "2026-01-01T00:00Z", "2026-W01-1T00:00:00Z")},
    **{each: each for each in ("2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00+24:00")},
    **{each: each for each in ("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "+02026-01-01T00:00:00Z")},
    "beyond the last, in UTC": "9999-12-31T23:59:59-23:59",
    "before the first, in UTC": "0001-01-01T00:00:00+23:59",
    "NUL": "2026-01-01T00:00:00Z\x00",
    "line break at the end": "2026-01-01T00:00:00Z\n",
    "lone surrogate": "\ud800",
    "digits of another script": "\u0662\u0660\u0662\u0666-01-01T00:00:00Z",
    "full-width digits": "\uff12026-01-01T00:00:00Z",
    "400 digits": "9" * 400,
    "number": 1767225600,
    "true": True,
    "array": [],
    "object": {},
}
_VALUES: dict[str, dict[str, Any]] = {
    "starts_at": _TIMES,
    "ends_at": _TIMES,
    "paused": {"null": None, "text": "true", "1": 1, "array": [True]},
    "per_user_limit": {
        "null": None,
        "0": 0,
        "-1": -1,
        "1001": 1001,
        "10^20": 10**20,
        "true": True,
        "text": "1",
        "1.5": 1.5,
    },
    "uses": {"null": None, "0": 0, "-1": -1, "1001": 1001, "10^20": 10**20, "true": True, "text": "1", "1.5": 1.5},
    "claims_per_user": {"0": 0, "-1": -1, "1000001": 1_000_001, "10^20": 10**20, "true": True, "text": "1", "1.5": 1.5},
    "type": {name: value for name, value in COUPON_NAMES.items() if value is not None},
    "name": {"right": "plenty", "another": "other"},
    "strategy": {"right": "redlock"},
    "remaining_amount": {"1": 1},
    "archived_at": {"right": "2026-01-01T00:00:00Z", "null": None},
}
# Raw, because Python would not write some of them. What is wrong inside is named where it is.
_BENEFITS: dict[str, str | None] = {
    **dict.fromkeys(("[]", "5", "true", '"15%"'), "#/benefit"),
    "{}": None,
    '{"percent_off": 15, "text": "both"}': None,
    '{"percent_off": null}': None,
    '{"amount_off": 1, "currency": "KRW", "percent_off": 1}': None,
    '{"__proto__": 1}': None,
    **{
        f'{{"percent_off": {each}}}': None
        for each in ("0", "-1", "101", "100.00000001", "true", '"15"', "[15]", '{"a": 1}', "1e300", "9" * 32)
    },
    **{
        f'{{"amount_off": {amount}, "currency": {currency}}}': None
        for amount, currency in (
            *(("0", '"KRW"'), ("-1", '"KRW"'), ("1.5", '"KRW"'), ("9007199254740992", '"KRW"'), ("1e22", '"KRW"')),
            *(
                ("1", '"krw"'),
                ("1", '"KRWX"'),
                ("1", '"KRW\\n"'),
                ("1", '"\\uff2bRW"'),
                ("1", "null"),
                ("null", '"KRW"'),
            ),
        )
    },
    **{
        f'{{"text": {each}}}': None for each in ('""', '"\\u0000"', '"\\ud800"', "5", "null", '["a"]', f'"{"a" * 501}"')
    },
}
_METADATA: dict[str, str | None] = {
    **dict.fromkeys(("null", "[]", "5", '"a"', '[{"a": 1}]'), "#/metadata"),
    '{"a": {"b": 1}}': "#/metadata/a",
    '{"a": []}': "#/metadata/a",
    f'{{"a": {"[" * 200}{"]" * 200}}}': "#/metadata/a",
    f'{{"a": 1{"0" * 30}}}': "#/metadata/a",
    f'{{"a": -1{"0" * 30}}}': "#/metadata/a",
    '{"a": 9007199254740992}': "#/metadata/a",
    '{"a": 18446744073709551616}': "#/metadata/a",
    '{"a": 1e22}': "#/metadata/a",
    '{"a": 1.5e308}': "#/metadata/a",
    '{"a": "\\u0000"}': "#/metadata/a",
    '{"a": "x\\u0000y"}': "#/metadata/a",
    '{"a": "\\ud800"}': "#/metadata/a",
    '{"\\u0000": 1}': "#/metadata",
    '{"\\ud800": 1}': "#/metadata",
    '{"a": 1, "a": 2}': "#",
    '{"a": 1e999}': "#",
    '{"a": NaN}': "#",
    json.dumps({"a": "b" * 8192}): "#/metadata",
    json.dumps({f"name-{number}": None for number in range(600)}): "#/metadata",
    json.dumps({"a": "\U0001f600" * 2100}, ensure_ascii=False): "#/metadata",
}
_KEYS = {
    "empty": "",
    "blank": " ",
    "empty text": '""',
    "two words": "two words",
    "list": '"a", "b"',
    "half a quotation": '"a',
    "parameter": '"a";b=1',
    "unknown escape": '"a\\b"',
    "not ASCII": "\u00e9",
    "not ASCII, in quotation marks": '"\u00e9"',
    "long": "k" * 256,
    "very long": "k" * 8000,
}


def lives() -> Iterator[Case]:
    yield from _coupons()
    yield from _claims()
    for name, key in _KEYS.items():
        for path, body in (("/api/coupons/claim", CLAIM), ("/api/coupons", b'{"name": "new", "amount": 5}')):
            data = post(body, path, Idempotency_Key=key)
            yield Case(f"key for {path}: {name}", data, 400, "bad-request", "Idempotency-Key")
    twice = request(
        "POST", "/api/coupons/claim", CLAIM, Authorization=f"{KEY}\r\nIdempotency-Key: a", Idempotency_Key="a"
    )
    yield Case("key: the same twice", twice, 400, "bad-request", "Idempotency-Key")


def _patch(body: bytes, path: str = "/api/coupons/plenty") -> bytes:
    return request("PATCH", path, body, Authorization=KEY)


def _coupons() -> Iterator[Case]:
    for field, values in _VALUES.items():
        for name, value in values.items():
            data = _patch(json.dumps({"amount": 5000, field: value}).encode())
            yield Case(f"change {field}: {name[:30]}", data, 400, "bad-request", f"#/{field}")
    for name, amount in AMOUNTS.items():
        yield Case(f"change amount: {name}", _patch(f'{{"amount": {amount}}}'.encode()), 400, "bad-request", "#/amount")
    wrong: dict[str, dict[str, str | None]] = {"benefit": _BENEFITS, "metadata": _METADATA}
    for field, texts in wrong.items():
        for text, place in texts.items():
            for what, data in (
                ("change", _patch(f'{{"amount": 5000, "{field}": {text}}}'.encode())),
                ("new", post(f'{{"name": "new", "amount": 5, "{field}": {text}}}'.encode(), "/api/coupons")),
            ):
                yield Case(f"{what} {field}: {text[:40]}", data, 400, "bad-request", place)
    for name, body in {"empty": b"", "array": b"[]", "null": b"null", "broken": b'{"amount": 5', "NUL": b"\0"}.items():
        yield Case(f"change: {name}", _patch(body), 400, "bad-request")
    data = request("PATCH", "/api/coupons/plenty", b"amount=5", Authorization=KEY, content_type="text/plain")
    yield Case("change: not JSON", data, 415, "unsupported-media-type")
    for name in PATH_NAMES:
        yield Case(f"change, path: {name[:20]}", _patch(b"{}", f"/api/coupons/{name}"), 400, "bad-request", "name")
        data = request("POST", f"/api/coupons/{name}/archive", None, Authorization=KEY)
        yield Case(f"archive, path: {name[:20]}", data, 400, "bad-request", "name")
    yield Case("change of an unknown coupon", _patch(b'{"amount": 5}', "/api/coupons/none"), 404, "unknown-coupon")
    data = request("POST", "/api/coupons/none/archive", None, Authorization=KEY)
    yield Case("archive of an unknown coupon", data, 404, "unknown-coupon")
    ends_first = b'{"starts_at": "2027-01-01T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}'
    yield Case("change: it would never be open", _patch(ends_first), 409, "empty-period")


def _claims() -> Iterator[Case]:
    for claim_id in CLAIM_IDS:
        data = request("POST", f"/api/claims/{claim_id}/confirm")
        yield Case(f"confirm, id: {claim_id[:20]}", data, 400, "bad-request", "id")
        data = request("DELETE", f"/api/claims/{claim_id}", _REASON)
        yield Case(f"cancel, id: {claim_id[:20]}", data, 400, "bad-request", "id")
    for name, value in REASONS.items():
        data = request("DELETE", _NO_CLAIM, json.dumps({"reason": value}).encode())
        yield Case(f"cancel, reason: {name}", data, 400, "bad-request", "#/reason")
    for name, body in {"array": b"[]", "broken": b'{"reason": "a'}.items():
        yield Case(f"cancel: {name}", request("DELETE", _NO_CLAIM, body), 400, "bad-request")
    for name, body in {"empty": b"", "no reason": b"{}", "empty reason": b'{"reason": ""}'}.items():
        yield Case(f"cancel: {name}", request("DELETE", _NO_CLAIM, body), 404, "unknown-claim")
    yield Case("cancel: no body", request("DELETE", _NO_CLAIM, content_type=None), 404, "unknown-claim")
    yield Case("cancel: no JSON", request("DELETE", _NO_CLAIM, b"a", content_type=None), 415, "unsupported-media-type")
    more = b'{"reason": "because", "user_id": "ann"}'
    yield Case("cancel: more than a reason", request("DELETE", _NO_CLAIM, more), 400, "bad-request", "#/user_id")
    yield Case("cancel of an unknown claim", request("DELETE", _NO_CLAIM, _REASON), 404, "unknown-claim")
    yield Case("confirm of an unknown claim", request("POST", f"{_NO_CLAIM}/confirm"), 404, "unknown-claim")
