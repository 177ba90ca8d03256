"""Bodies that are not JSON, and values that are not what the contract says."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from claimsvc.domain import MAX_AMOUNT
from tests.faults.hostile.case import CLAIM, KEY, Case, post
from tests.support.raw_http import request

_NOT_JSON_OBJECTS = {
    "empty body": b"",
    "truncated JSON": CLAIM[:-5],
    "byte order mark": b"\xef\xbb\xbf" + CLAIM,
    "UTF-16": CLAIM.decode().encode("utf-16"),
    "bad UTF-8": b'{"user_id": "\xff", "coupon_name": "plenty"}',
    "overlong UTF-8": b'{"user_id": "\xc0\xaf", "coupon_name": "plenty"}',
    "surrogate in UTF-8": b'{"user_id": "\xed\xa0\x80", "coupon_name": "plenty"}',
    "NaN": b'{"user_id": NaN, "coupon_name": "plenty"}',
    "Infinity": b'{"user_id": -Infinity, "coupon_name": "plenty"}',
    "1e999": b'{"user_id": 1e999, "coupon_name": "plenty"}',
    "number of 5,000 digits": b'{"user_id": ' + b"9" * 5000 + b', "coupon_name": "plenty"}',
    "fraction of 60,000 digits": b'{"user_id": 1.' + b"9" * 60_000 + b"}",
    "exponent of 60,000 digits": b'{"user_id": 1e' + b"9" * 60_000 + b"}",
    "exponent beyond that of decimals": b'{"user_id": 1e-99999999999999999999}',
    "zero with such an exponent": b'{"user_id": 0e99999999999999999999}',
    "nested as deep as fits": b'{"user_id": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nested, and cut short": b'{"a":' * 13_000,
    "duplicate key": b'{"user_id": "ann", "user_id": "bob", "coupon_name": "plenty"}',
    "duplicate key, escaped": b'{"user_id": "ann", "user\\u005fid": "bob", "coupon_name": "plenty"}',
    "duplicate key inside": b'{"user_id": {"a": 1, "a": 2}, "coupon_name": "plenty"}',
    "duplicate key that is not fit to be shown": b'{"\\u0000\\ud800": 1, "\\u0000\\ud800": 2}',
    "array": b"[" + CLAIM + b"]",
    "string": b'"ann"',
    "null": b"null",
    "number": b"5",
    "two documents": CLAIM + CLAIM,
    "single quotes": b"{'user_id': 'ann'}",
    "comment": b"/* */" + CLAIM,
    "trailing comma": CLAIM[:-1] + b",}",
    "control character in a string": b'{"user_id": "a\nb", "coupon_name": "plenty"}',
    "blanks only": b" \n\t",
    "NUL": b"\x00",
    "10,000 unknown keys": json.dumps({f"{number:x}": 1 for number in range(5000)}).encode(),
}
_DEEP = {
    "nested 100,000 deep": b"[" * 100_000,
    "nested 100,000 deep, and closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}
AMOUNTS = {
    **{each: each for each in ("null", "true", "1.5", '"5"', "0", "-1", "-0.0", "1e300", "[1]", "{}", "2147483648.0")},
    "2^31": str(MAX_AMOUNT + 1),
    "a number that rounds to 1": "0." + "9" * 30,
    "10^20": str(10**20),
}
COUPON_NAMES: dict[str, Any] = {
    "empty": "",
    "blank": " ",
    "too long": "a" * 256,
    "dots only": "..",
    "slash": "a/b",
    "NUL": "a\x00b",
    "line break": "a\r\nb",
    "line break at the end": "a\n",
    "escape sequence": "\x1b[31m",
    "DEL": "a\x7f",
    "C1 control": "a\x9b",
    "zero-width": "a\u200bb",
    "right-to-left override": "a\u202eb",
    "lone surrogate": "\ud800",
    "not ASCII": "é",
    "full-width digits": "\uff11",
    "emoji": "\U0001f600",
    "null": None,
    "true": True,
    "number": 5,
    "array": ["a"],
    "object": {},
}
_USER_IDS = {**COUPON_NAMES}
for _fine in ("dots only", "slash"):
    del _USER_IDS[_fine]
REASONS: dict[str, Any] = {
    "blank": " ",
    "too long": "a" * 501,
    "NUL": "a\x00b",
    "line break at the end": "a\n",
    "escape sequence": "\x1b[31m",
    "C1 control": "a\x9b",
    "zero-width space": "\u200b",
    "Hangul filler": "\u3164",
    "language tag": "\U000e0041",
    "right-to-left override": "a\u202eb",
    "lone surrogate": "\ud800",
    "null": None,
    "number": 5,
}
_FILES: dict[str, tuple[str, bytes, int, str]] = {
    "JSON": ("application/json", b'[{"code": "a"}]', 415, "unsupported-media-type"),
    "no type": ("text/plain", b"a", 415, "unsupported-media-type"),
    "other charset": ("text/csv; charset=utf-16", b"a", 415, "unsupported-media-type"),
    "not UTF-8": ("text/csv", b"\xff\n", 422, "rows-refused"),
    "NUL": ("text/csv", b"a\x00b\n", 422, "rows-refused"),
    "three columns": ("text/csv", b"a,,b\n", 422, "rows-refused"),
    "open quotation": ("text/csv", b'"a\n', 422, "rows-refused"),
    "formula": ("text/csv", b"=1+1\n", 422, "rows-refused"),
    "escape sequence": ("text/csv", b"\x1b[31m\n", 422, "rows-refused"),
    "no zone": ("text/csv", b"a,2126-01-01T00:00:00\n", 422, "rows-refused"),
    "last moment": ("text/csv", b"a,9999-12-31T23:59:59-23:59\n", 422, "rows-refused"),
    "long row": ("text/csv", b"a" * 5000, 400, "bad-request"),
    "too many rows": ("text/csv", b"a\n" * 200_001, 413, "body-too-large"),
    "nested": ("application/x-ndjson", b'{"code":' * 400 + b"\n", 422, "rows-refused"),
    "duplicate key": ("application/x-ndjson", b'{"code": "a", "code": "b"}\n', 422, "rows-refused"),
    "unknown key": ("application/x-ndjson", b'{"code": "a", "x": 1}\n', 422, "rows-refused"),
    "number": ("application/x-ndjson", b'{"code": 5}\n', 422, "rows-refused"),
    "exponent beyond that of decimals": (
        "application/x-ndjson",
        b'{"code": 1e-99999999999999999999}\n',
        422,
        "rows-refused",
    ),
    "8,000 semicolons": ("text/csv" + ";" * 8000, b"a\n", 415, "unsupported-media-type"),
    "array": ("application/x-ndjson", b'["a"]\n', 422, "rows-refused"),
}
_GENERATED: dict[str, dict[str, Any]] = {
    "no count": {"pattern": "AAAA-9999"},
    "none": {"count": 0, "pattern": "AAAA-9999"},
    "too many": {"count": 100_001, "pattern": "AAAA-9999"},
    "true": {"count": True, "pattern": "AAAA-9999"},
    "lower case": {"count": 1, "pattern": "aaaa"},
    "long": {"count": 1, "pattern": "A" * 65},
    "other syllable": {"count": 1, "pattern": "나나나나나"},
    "no zone": {"count": 1, "pattern": "AAAA-9999", "expires_at": "2126-01-01T00:00:00"},
}
_ATTRIBUTES: dict[str, Any] = {
    "array": [],
    "nested": {"a": {"b": 1}},
    "null inside": {"a": None},
    "21 of them": {f"a{number}": 1 for number in range(21)},
    "too long": {"a": "x" * 256},
    "NUL": {"a": "\x00"},
    "lone surrogate": {"a": "\ud800"},
    "2^53": {"a": 2**53},
    "1e300": {"a": 1e300},
    "an escape sequence for a name": {"\x1b[2J": 1},
    "no name": {"": 1},
}
_RULES: dict[str, Any] = {
    "array": [],
    "unknown kind": {"any": []},
    "no name": {"attributes": [{"one_of": ["a"]}]},
    "code for a value": {"attributes": [{"name": "a", "one_of": [{"$where": "1"}]}]},
    "text for a number": {"attributes": [{"name": "a", "at_least": "1"}]},
    "unknown source": {"attributes": [{"name": "a", "source": "header"}]},
    "21 coupons": {"holds": ["a"] * 21},
    "a coupon of dots": {"holds_not": [".."]},
    "a megabyte of digits": {"attributes": [{"name": "a", "one_of": [1e-300] * 200}] * 5},
}
_LISTS: dict[str, tuple[str, bytes, int, str]] = {
    "empty": ("text/plain", b"", 400, "bad-request"),
    "NUL": ("text/plain", b"ann\n\x00\n", 400, "bad-request"),
    "blank in an id": ("text/plain", b"ann bob", 400, "bad-request"),
    "bad UTF-8": ("text/plain", b"\xff\xfe", 400, "bad-request"),
    "a line without end": ("text/plain", b"x" * 60_000, 400, "bad-request"),
    "an open quotation mark": ("text/csv", b'user_id\n"ann\nbob', 400, "bad-request"),
    "CSV without the column": ("text/csv", b"id\nann", 400, "bad-request"),
    "NDJSON, nested": ("application/x-ndjson", b"[" * 4000, 400, "bad-request"),
    "NDJSON, an exponent": ("application/x-ndjson", b'{"user_id": 1e-99999999999999999999}', 400, "bad-request"),
    "NDJSON, a duplicate key": ("application/x-ndjson", b'{"user_id": "a", "user_id": "b"}', 400, "bad-request"),
    "JSON": ("application/json", b'["ann"]', 415, "unsupported-media-type"),
    "UTF-16": ("text/plain; charset=utf-16", "ann".encode("utf-16"), 415, "unsupported-media-type"),
}
_UNKNOWN_KEYS = {
    "plain": ("extra", "#/extra"),
    "escaped": ("a/b~c", "#/a~1b~0c"),
    "encoded": ("a b", "#/a%20b"),
    "lone surrogate": ("\ud800", "#"),
    "escape sequence": ("\x1b[2J", "#"),
    "long": ("k" * 999, "#"),
    "of Python": ("__class__", "#/__class__"),
}


def bodies() -> Iterator[Case]:
    for name, body in _NOT_JSON_OBJECTS.items():
        yield Case(f"body: {name}", post(body), 400, "bad-request")
    for name, body in _DEEP.items():
        yield Case(f"body: {name}", post(body), 400, "bad-request", "#", ends=True)
    for name, amount in AMOUNTS.items():
        body = f'{{"name": "new", "amount": {amount}}}'.encode()
        yield Case(f"amount: {name}", post(body, "/api/coupons"), 400, "bad-request", "#/amount")
    for name, value in COUPON_NAMES.items():
        body = json.dumps({"name": value, "amount": 5}).encode()
        yield Case(f"new coupon: {name}", post(body, "/api/coupons"), 400, "bad-request", "#/name")
    values: Mapping[str, dict[str, Any]] = {"coupon_name": COUPON_NAMES, "user_id": _USER_IDS}
    for field, its_values in values.items():
        for name, value in its_values.items():
            body = json.dumps({"user_id": "ann", "coupon_name": "plenty", field: value}).encode()
            yield Case(f"{field}: {name}", post(body), 400, "bad-request", f"#/{field}")
    for name, value in REASONS.items():
        data = request("DELETE", "/api/locks/plenty", json.dumps({"reason": value}).encode(), Authorization=KEY)
        yield Case(f"reason: {name}", data, 400, "bad-request", "#/reason")
    for name, (media_type, file, status, slug) in _FILES.items():
        data = post(file, "/api/coupons/plenty/codes", **{"Content-Type": media_type})
        yield Case(f"codes: {name}", data, status, slug, ends=slug != "rows-refused")
    for name, document in _GENERATED.items():
        data = post(json.dumps(document).encode(), "/api/coupons/plenty/codes/generate")
        yield Case(f"codes to be made: {name}", data, 400, "bad-request")
    both = b'{"user_id": "ann", "coupon_name": "plenty", "type": "welcome"}'
    yield Case("coupon and type", post(both), 400, "bad-request", "#/type")
    yield Case("coupon and no type", post(both.replace(b'"welcome"', b"null")), 400, "bad-request", "#/type")
    yield Case("neither coupon nor type", post(b'{"user_id": "ann"}'), 400, "bad-request", "#")
    yield Case("coupon misspelt", post(b'{"user_id": "ann", "coupon": "plenty"}'), 400, "bad-request", "#/coupon")
    # null is the type of coupons without a type.
    for name, value in ((name, value) for name, value in COUPON_NAMES.items() if value is not None):
        body = json.dumps({"user_id": "ann", "type": value}).encode()
        yield Case(f"type: {name}", post(body), 400, "bad-request", "#/type")
    for name, attributes in _ATTRIBUTES.items():
        for path, names in (("claim", {"coupon_name": "plenty"}), ("plenty/eligibility", {})):
            body = json.dumps({"user_id": "ann", **names, "attributes": attributes}).encode()
            data = post(body, f"/api/coupons/{path}")
            yield Case(f"attributes for {path}: {name}", data, 400, "bad-request")
    for name, rules in _RULES.items():
        body = json.dumps({"name": "new", "amount": 5, "rules": rules}).encode()
        yield Case(f"rules: {name}", post(body, "/api/coupons"), 400, "bad-request")
    for name, (kind, body, status, slug) in _LISTS.items():
        data = request("PUT", "/api/coupons/plenty/allow-list", body, content_type=kind, Authorization=KEY)
        yield Case(f"list: {name}", data, status, slug, ends=True)
    for name, (key, pointer) in _UNKNOWN_KEYS.items():
        body = json.dumps({"user_id": "ann", "coupon_name": "plenty", key: 1}).encode()
        yield Case(f"unknown field: {name}", post(body), 400, "bad-request", pointer)
