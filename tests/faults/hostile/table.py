"""The bad-input table: what is sent, byte for byte, and what the contract says of it.

Left for the issues that bring them: idempotency keys (409, 422), quotas (429), and tokens of users (401 for
`alg: none`, RS to HS, wrong audience; 403 for a user on an admin route).
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from claimsvc.api.schemas import MAX_BODY_BYTES
from claimsvc.domain import MAX_AMOUNT
from tests.faults.hostile.wire import request
from tests.test_cli import ADMIN_DIGEST, ADMIN_KEY

KEY = f"Bearer {ADMIN_KEY}"
CLAIM = b'{"user_id": "ann", "coupon_name": "plenty"}'


@dataclass(frozen=True, slots=True)
class Case:
    """One bad request.

    `place` is the pointer or the parameter that the refusal names; None leaves it open. `ends` says that the connection
    is of no use afterwards, because nobody can tell where the next request begins.
    """

    name: str
    data: bytes
    status: int
    slug: str
    place: str | None = None
    ends: bool = False


def post(body: bytes, path: str = "/api/coupons/claim", **headers: Any) -> bytes:
    return request("POST", path, body, **{"Authorization": KEY, **headers})


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
_AMOUNTS = {
    **{each: each for each in ("null", "true", "1.5", '"5"', "0", "-1", "-0.0", "1e300", "[1]", "{}", "2147483648.0")},
    "2^31": str(MAX_AMOUNT + 1),
    "a number that rounds to 1": "0." + "9" * 30,
    "10^20": str(10**20),
}
_COUPON_NAMES: dict[str, Any] = {
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
_USER_IDS = {**_COUPON_NAMES}
for _fine in ("dots only", "slash"):
    del _USER_IDS[_fine]
_REASONS: dict[str, Any] = {
    "empty": "",
    "blank": " ",
    "too long": "a" * 501,
    "NUL": "a\x00b",
    "line break at the end": "a\n",
    "escape sequence": "\x1b[31m",
    "C1 control": "a\x9b",
    "lone surrogate": "\ud800",
    "null": None,
    "number": 5,
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
_PATH_NAMES = [
    *("%00", "a%2Fb", "%2F", "a%0D%0AX:%20y", "%0A", "%E2%80%8B", "%FF", "%ED%A0%80", "%C0%AF", "%zz", "%", "a%20b"),
    *("%7Bname%7D", "..", ".", "%2e%2e", "a" * 256, "%F0%9F%98%80", "a;b", "a%3Fb", "%25", "%2500", "a%5Cb", "'--"),
]
_CLAIM_IDS = [
    *("1", "%00", "{00000000-0000-0000-0000-000000000000}", "urn:uuid:00000000-0000-0000-0000-000000000000"),
    *("00000000000000000000000000000000", "00000000-0000-0000-0000-00000000000g", "a" * 4000, "%0D%0A"),
]
_QUERIES = {
    **dict.fromkeys(["limit=0", "limit=101", "limit=-1", "limit=", "limit=5.0", "limit=1_0", "limit=%2010"], "limit"),
    **dict.fromkeys(["limit=%EF%BC%91", "limit=" + "9" * 5000, "limit=1&limit=1", "limit=1e1", "limit=0x1"], "limit"),
    **dict.fromkeys(["cursor=garbage", "cursor=", "cursor=2e", "cursor=00", "cursor=7", "cursor=%00"], "cursor"),
    **dict.fromkeys(["search=%00", "search=%25", "search=" + "a" * 256, "search=%FF", "search='"], "search"),
    "nonsense=1": "nonsense",
    "%00=1": "",
    "%1b%5B31m=1": "",
}
_CLAIM_CURSORS = ["garbage", "0" * 47, "0" * 49, "f" * 48, "0" * 47 + "g", "%00" * 48]

_HEAD = b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_GET = b"GET /livez HTTP/1.1\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
_NOT_HTTP = {
    "conflicting Content-Length": _HEAD + b"Content-Length: 43\r\nContent-Length: 44\r\n\r\n" + CLAIM,
    "Content-Length, shorter and longer": _HEAD + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n" + _SMUGGLED,
    "listed Content-Length": _HEAD + b"Content-Length: 43, 43\r\n\r\n" + CLAIM,
    "negative Content-Length": _HEAD + b"Content-Length: -1\r\n\r\n" + CLAIM,
    "signed Content-Length": _HEAD + b"Content-Length: +43\r\n\r\n" + CLAIM,
    "hexadecimal Content-Length": _HEAD + b"Content-Length: 0x2b\r\n\r\n" + CLAIM,
    "blank within Content-Length": _HEAD + b"Content-Length: 4 3\r\n\r\n" + CLAIM,
    "letters in Content-Length": _HEAD + b"Content-Length: 43abc\r\n\r\n" + CLAIM,
    "full-width Content-Length": _HEAD + b"Content-Length: \xef\xbc\x94\xef\xbc\x93\r\n\r\n" + CLAIM,
    "empty Content-Length": _HEAD + b"Content-Length: \r\n\r\n" + CLAIM,
    "immense Content-Length": _HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + CLAIM,
    "Content-Length that wraps at 64 bits": _HEAD + b"Content-Length: 18446744073709551659\r\n\r\n" + CLAIM,
    "CL + TE": _HEAD + b"Content-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE + CL": _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "CL + TE, in other cases": _HEAD + b"content-length: 5\r\nTRANSFER-encoding: CHUNKED\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "unknown Transfer-Encoding": _HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "xchunked": _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": _HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked, then gzip": _HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": _HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": _HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "malformed chunk": _CHUNKED + b"zz\r\n",
    "chunk size that wraps at 64 bits": _CHUNKED + b"10000000000000005\r\n12345\r\n0\r\n\r\n",
    "chunk size without end": _CHUNKED + b"f" * 5000,
    "signed chunk size": _CHUNKED + b"+5\r\n12345\r\n0\r\n\r\n",
    "negative chunk size": _CHUNKED + b"-1\r\n12345\r\n0\r\n\r\n",
    "0x chunk size": _CHUNKED + b"0x5\r\n12345\r\n0\r\n\r\n",
    "blank before a chunk size": _CHUNKED + b" 5\r\n12345\r\n0\r\n\r\n",
    "bare LF after a chunk size": _CHUNKED + b"5\n12345\r\n0\r\n\r\n",
    "chunk longer than it says": _CHUNKED + b"5\r\n1234567\r\n0\r\n\r\n",
    "bare CR in a chunk extension": _CHUNKED + b"5;a=\rb\r\n12345\r\n0\r\n\r\n",
    "Content-Length as a trailer": _CHUNKED + b"2b\r\n" + CLAIM + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "missing Host": _GET + b"\r\n",
    "doubled Host": _GET + b"Host: a\r\nHost: b\r\n\r\n",
    "the same Host twice": _GET + b"Host: a\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/0.9, with its version": b"GET /livez HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/11": b"GET /livez HTTP/11\r\nHost: x\r\n\r\n",
    "HTTP/1.1 in lower case": b"GET /livez http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "method with a slash": b"GET/ /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "blank within the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "space before a colon": _GET + b"Host : x\r\n\r\n",
    "header without a colon": _GET + b"Host: x\r\nnonsense\r\n\r\n",
    "header without a name": _GET + b"Host: x\r\n: y\r\n\r\n",
    "blank in a header's name": _GET + b"Host: x\r\nA B: y\r\n\r\n",
    "folded header": _GET + b"Host: x\r\n folded: y\r\n\r\n",
    "folded header with a tab": _GET + b"Host: x\r\nA: b\r\n\tc\r\n\r\n",
    "folded Transfer-Encoding": _HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded first header": b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    "NUL in a header": _GET + b"Host: x\r\nA: b\x00c\r\n\r\n",
    "NUL in a header's name": _GET + b"Host: x\r\nA\x00: c\r\n\r\n",
    "bare CR in a header": _GET + b"Host: x\r\nA: b\rC: d\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "bare line feed between headers": _GET + b"Host: x\nA: b\r\n\r\n",
    "bare line feed at the end": _GET + b"Host: x\r\nA: b\n\n",
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "escape sequence in the path": b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
    "port out of range": b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken IPv6 address": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
}
_CONTENT_TYPES: list[str | None] = [
    *(None, "", "json", "application/", "*/*", "text/plain", "application/xml", "text/json"),
    *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *(f"application/json; charset={each}" for each in ("utf-16", "latin-1", "nonsense", "utf-7")),
]
_ENCODINGS = ["br", "zstd", "deflate", "compress", "nonsense", "gzip, gzip", "", "\u00e9"]
_BROKEN_GZIP = {
    "empty": b"",
    "plain": CLAIM,
    "truncated": gzip.compress(CLAIM)[:-3],
    "of a wrong sum": gzip.compress(CLAIM)[:-8] + b"\0" * 8,
    "followed by more": gzip.compress(CLAIM) + b"more",
    "of two members": gzip.compress(CLAIM) * 2,
}
_OVER = b'{"user_id": "' + b"a" * MAX_BODY_BYTES + b'"}'
_CHUNK = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
_TOO_LARGE = {
    "over by a little": post(_OVER),
    "blanks": post(b" " * (MAX_BODY_BYTES + 1)),
    "5 MB": post(b"a" * 5_000_000),
    "announced": _HEAD + b"Content-Length: 65537\r\n\r\n",
    "announced with 2^63 - 1": _HEAD + b"Content-Length: 9223372036854775807\r\n\r\n",
    "announced, to be asked for": _HEAD + b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n",
    "chunked": _CHUNKED + _CHUNK * 17 + b"0\r\n\r\n",
}
_INFLATED = {"gzip that is over": _OVER, "gzip bomb": b" " * 50_000_000}
_LARGE_HEADERS = {
    "large value": b"A: " + b"b" * 9000 + b"\r\n",
    "large name": b"A" * 9000 + b": b\r\n",
    "too many": b"A: b\r\n" * 101,
    "10,000 of them": b"A: b\r\n" * 10_000,
    "without end": b"A: " + b"b" * 500_000,
    "large cookie": b"Cookie: " + b"a=b;" * 3000 + b"\r\n",
}
_STALLED = {
    "body, announced": _HEAD + b"Content-Length: 43\r\n\r\n",
    "body, begun": _HEAD + b"Content-Length: 43\r\n\r\n" + CLAIM[:20],
    "body, chunked": _CHUNKED,
    "body, within a chunk": _CHUNKED + b"2b\r\n{",
    "body, without its last chunk": _CHUNKED + b"2b\r\n" + CLAIM + b"\r\n",
    "request line": b"GET /livez HT",
    "header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ",
    "one byte": b"G",
}
_NO_CREDENTIALS = {
    "none": None,
    "empty": "",
    "no key": "Bearer",
    "another key": "Bearer nonsense",
    "another scheme": f"Basic {ADMIN_KEY}",
    "no scheme": ADMIN_KEY,
    "its digest": f"Bearer {ADMIN_DIGEST}",
    "two keys": f"{KEY} {ADMIN_KEY}",
    "followed by a NUL, escaped": f"{KEY}%00",
    "in capitals": f"Bearer {ADMIN_KEY.upper()}",
    "not ASCII": f"{KEY}\u00e9",
    "8,000 characters": "Bearer " + "k" * 8000,
    "a token without signature": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
}
_METHODS = {
    "/api/coupons/claim": ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"),
    "/api/coupons": ("PUT", "DELETE", "TRACE"),
    "/api/coupons/plenty": ("POST", "DELETE", "PURGE"),
    "/api/locks": ("POST", "DELETE", "PUT"),
    "/api/locks/plenty": ("GET", "POST", "PUT"),
    "/livez": ("POST", "TRACE", "PROPFIND"),
    "/api/claims/00000000-0000-0000-0000-000000000000": ("DELETE", "POST"),
}
_NOWHERE = ["/", "/api", "/api/", "/api/coupons/", "/livez/", "//livez", "/LIVEZ", "/%6civez/..", "/api/coupons/a/b/c"]
_UNKNOWN_ID = "/api/claims/00000000-0000-7000-8000-000000000000"


def _bodies() -> Iterator[Case]:
    for name, body in _NOT_JSON_OBJECTS.items():
        yield Case(f"body: {name}", post(body), 400, "bad-request")
    for name, body in _DEEP.items():
        yield Case(f"body: {name}", post(body), 400, "bad-request", "#", ends=True)
    for name, amount in _AMOUNTS.items():
        body = f'{{"name": "new", "amount": {amount}}}'.encode()
        yield Case(f"amount: {name}", post(body, "/api/coupons"), 400, "bad-request", "#/amount")
    for name, value in _COUPON_NAMES.items():
        body = json.dumps({"name": value, "amount": 5}).encode()
        yield Case(f"new coupon: {name}", post(body, "/api/coupons"), 400, "bad-request", "#/name")
    values: Mapping[str, dict[str, Any]] = {"coupon_name": _COUPON_NAMES, "user_id": _USER_IDS}
    for field, its_values in values.items():
        for name, value in its_values.items():
            body = json.dumps({"user_id": "ann", "coupon_name": "plenty", field: value}).encode()
            yield Case(f"{field}: {name}", post(body), 400, "bad-request", f"#/{field}")
    for name, value in _REASONS.items():
        data = request("DELETE", "/api/locks/plenty", json.dumps({"reason": value}).encode(), Authorization=KEY)
        yield Case(f"reason: {name}", data, 400, "bad-request", "#/reason")
    for name, (key, pointer) in _UNKNOWN_KEYS.items():
        body = json.dumps({"user_id": "ann", "coupon_name": "plenty", key: 1}).encode()
        yield Case(f"unknown field: {name}", post(body), 400, "bad-request", pointer)


def _targets() -> Iterator[Case]:
    for path in ("/api/coupons/{}", "/api/coupons/{}/claims"):
        for name in _PATH_NAMES:
            yield Case(f"path: {path} {name[:20]}", request("GET", path.format(name)), 400, "bad-request", "name")
    for claim_id in _CLAIM_IDS:
        yield Case(f"claim id: {claim_id[:20]}", request("GET", f"/api/claims/{claim_id}"), 400, "bad-request", "id")
    for query, parameter in _QUERIES.items():
        data = request("GET", f"/api/coupons?{query}")
        yield Case(f"query: {query[:20]}", data, 400, "bad-request", parameter)
    for cursor in _CLAIM_CURSORS:
        data = request("GET", f"/api/coupons/plenty/claims?cursor={cursor}")
        yield Case(f"cursor of claims: {cursor[:20]}", data, 400, "bad-request", "cursor")
    for path in _NOWHERE:
        yield Case(f"nowhere: {path}", request("GET", path), 404, "not-found")
    yield Case("unknown coupon", request("GET", "/api/coupons/none"), 404, "unknown-coupon")
    yield Case("claims of an unknown coupon", request("GET", "/api/coupons/none/claims"), 404, "unknown-coupon")
    yield Case("claim of an unknown coupon", post(CLAIM.replace(b"plenty", b"none")), 404, "unknown-coupon")
    free = request("DELETE", "/api/locks/none", b'{"reason": "because"}', Authorization=KEY)
    yield Case("lock that nobody holds", free, 404, "lock-not-held")
    yield Case("unknown claim", request("GET", _UNKNOWN_ID), 404, "unknown-claim")
    yield Case("nowhere, with a body", post(CLAIM, "/no/such"), 404, "not-found")
    yield Case("another host's path", request("GET", "http://elsewhere/no/such"), 404, "not-found")
    yield Case("CONNECT", b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not-found")
    yield Case("CONNECT to a path", b"CONNECT /livez HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not-found")
    yield Case("OPTIONS *", request("OPTIONS", "*"), 404, "not-found")
    yield Case("long path", request("GET", "/" + "a" * 9000), 414, "uri-too-long", ends=True)
    for path, methods in _METHODS.items():
        for method in methods:
            yield Case(f"method: {method} {path}", request(method, path), 405, "method-not-allowed")


def _transport() -> Iterator[Case]:
    for name, data in _NOT_HTTP.items():
        yield Case(f"not HTTP: {name}", data, 400, "bad-request", ends=True)
    for kind in _CONTENT_TYPES:
        yield Case(f"content type: {kind}", post(CLAIM, content_type=kind), 415, "unsupported-media-type")
    for encoding in _ENCODINGS:
        data = post(CLAIM, Content_Encoding=encoding)
        yield Case(f"encoding: {encoding}", data, 415, "unsupported-media-type")
    for name, body in _BROKEN_GZIP.items():
        yield Case(f"gzip: {name}", post(body, Content_Encoding="gzip"), 400, "bad-request")
    for name, data in _TOO_LARGE.items():
        yield Case(f"too large: {name}", data, 413, "body-too-large", ends=True)
    for name, body in _INFLATED.items():
        data = post(gzip.compress(body), Content_Encoding="gzip")
        yield Case(f"too large: {name}", data, 413, "body-too-large", ends=True)
    for name, headers in _LARGE_HEADERS.items():
        data = _GET + b"Host: x\r\n" + headers + b"\r\n"
        yield Case(f"headers: {name}", data, 431, "headers-too-large", ends=True)
    for name, data in _STALLED.items():
        yield Case(f"stalled: {name}", data, 408, "request-timeout", ends=True)
    for name, expectation in {"nonsense": "nonsense", "not ASCII": "\u00e9"}.items():
        yield Case(f"expectation: {name}", post(CLAIM, Expect=expectation), 417, "expectation-failed")


def _credentials() -> Iterator[Case]:
    body = b'{"name": "new", "amount": 5}'
    for name, credentials in _NO_CREDENTIALS.items():
        headers = {} if credentials is None else {"Authorization": credentials}
        data = request("POST", "/api/coupons", body, **headers)
        yield Case(f"credentials: {name}", data, 401, "unauthorized")
        data = request("DELETE", "/api/locks/plenty", b'{"reason": "because"}', **headers)
        yield Case(f"credentials for a lock: {name}", data, 401, "unauthorized")
        yield Case(f"credentials for locks: {name}", request("GET", "/api/locks", None, **headers), 401, "unauthorized")
    # Who asks is settled first: whoever may not is told nothing about the body.
    yield Case("credentials: none, and a bad body", request("POST", "/api/coupons", b"{"), 401, "unauthorized")


CASES = [*_bodies(), *_targets(), *_transport(), *_credentials()]
