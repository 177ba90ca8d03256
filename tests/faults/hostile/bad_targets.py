"""Paths, ids, queries and methods that lead nowhere or mean nothing."""

from collections.abc import Iterator

from tests.faults.hostile.case import CLAIM, KEY, Case, post
from tests.support.raw_http import request

PATH_NAMES = [
    *("%00", "a%2Fb", "%2F", "a%0D%0AX:%20y", "%0A", "%E2%80%8B", "%FF", "%ED%A0%80", "%C0%AF", "%zz", "%", "a%20%20b"),
    *("%20a", "a%20", "%20", "a%09b", "a%C2%A0b", "a+b"),
    *("%7Bname%7D", "..", ".", "%2e%2e", "a" * 256, "%F0%9F%98%80", "a;b", "a%3Fb", "%25", "%2500", "a%5Cb", "'--"),
]
CLAIM_IDS = [
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
_AUDIT_QUERIES = {
    **{
        f"since={each}": "since" for each in ("", "yesterday", "1767225600", "2026-01-01", "2026-01-01T00:00:00", "%00")
    },
    "since=9999-12-31T23:59:59-23:59": "since",
    **{f"cursor={each}": "cursor" for each in ("garbage", "0" * 31, "0" * 33, "f" * 32, "0" * 16 + "8" + "0" * 15)},
    **{f"subject_type={each}": "subject_type" for each in ("Coupon", "%00", "a" * 33)},
    **{f"subject={each}": "subject" for each in ("%00", "a" * 256, "a%20%20b", "%20a", "%FF")},
    **{f"actor={each}": "actor" for each in ("%00", "a" * 256, "%ED%A0%80")},
    **{f"action={each}": "action" for each in ("%00", "A", "a" * 65)},
    "limit=101": "limit",
    "reason=because": "reason",
}
_USER_IDS = ["%00", "a" * 256, "a%20b", "%0D%0A", "%E2%80%8B", ".", "..", "%2e%2e", "%F0%9F%98%80"]
_METHODS = {
    "/api/users/ann": ("GET", "POST", "PUT", "PATCH"),
    "/api/audit": ("POST", "PUT", "PATCH", "DELETE"),
    "/api/coupons/claim": ("PUT", "DELETE", "TRACE", "OPTIONS"),
    "/api/coupons": ("PUT", "DELETE", "TRACE"),
    "/api/coupons/plenty": ("POST", "DELETE", "PURGE"),
    "/api/locks": ("POST", "DELETE", "PUT"),
    "/api/locks/plenty": ("GET", "POST", "PUT"),
    "/livez": ("POST", "TRACE", "PROPFIND"),
    "/api/claims/00000000-0000-0000-0000-000000000000": ("PATCH", "POST"),
    "/api/claims/00000000-0000-0000-0000-000000000000/confirm": ("GET", "PUT", "PATCH", "DELETE"),
    "/api/coupons/plenty/archive": ("GET", "PUT", "PATCH", "DELETE"),
    "/api/coupons/plenty/codes": ("PUT", "DELETE"),
    "/api/coupons/plenty/codes/generate": ("GET", "PUT"),
    "/api/codes": ("POST", "DELETE"),
    "/api/codes/C-1": ("POST", "DELETE"),
    "/api/codes/C-1/redeem": ("GET", "DELETE"),
    "/api/coupons/plenty/eligibility": ("GET", "PUT"),
    "/api/coupons/plenty/allow-list": ("GET", "POST", "PATCH"),
}
_CODES = ["a" * 65, "..", "%00", "%2F", "a%0A", "%E2%80%8B", "%FF", "a%20b", "%E1%84%80", "%C3%A9", "*", "%7Bcode%7D"]
_NOWHERE = [
    "/none",
    "/api",
    "/api/",
    "/api/coupons/",
    "/livez/",
    "//livez",
    "/LIVEZ",
    "/%6civez/..",
    "/api/coupons/a/b/c",
]
_UNKNOWN_ID = "/api/claims/00000000-0000-7000-8000-000000000000"


def targets() -> Iterator[Case]:
    for path in ("/api/coupons/{}", "/api/coupons/{}/claims", "/api/coupons/{}/claims/export"):
        for name in PATH_NAMES:
            data = request("GET", path.format(name), Authorization=KEY)
            yield Case(f"path: {path} {name[:20]}", data, 400, "bad-request", "name")
    for claim_id in CLAIM_IDS:
        yield Case(f"claim id: {claim_id[:20]}", request("GET", f"/api/claims/{claim_id}"), 400, "bad-request", "id")
    for query, parameter in _QUERIES.items():
        data = request("GET", f"/api/coupons?{query}")
        yield Case(f"query: {query[:20]}", data, 400, "bad-request", parameter)
    for cursor in _CLAIM_CURSORS:
        data = request("GET", f"/api/coupons/plenty/claims?cursor={cursor}")
        yield Case(f"cursor of claims: {cursor[:20]}", data, 400, "bad-request", "cursor")
    for query, parameter in _AUDIT_QUERIES.items():
        data = request("GET", f"/api/audit?{query}", Authorization=KEY)
        yield Case(f"audit: {query[:30]}", data, 400, "bad-request", parameter)
    for user_id in _USER_IDS:
        data = request("DELETE", f"/api/users/{user_id}", Authorization=KEY)
        yield Case(f"user: {user_id[:20]}", data, 400, "bad-request", "id")
    for code in _CODES:
        for method, path in (("GET", "/api/codes/{}"), ("POST", "/api/codes/{}/redeem")):
            data = request(method, path.format(code), Authorization=KEY)
            yield Case(f"code: {method} {code[:20]}", data, 400, "bad-request", "code")
    for query, parameter in {"type=..": "type", "type=%00": "type", "type=a&type=a": "type", "kind=a": "kind"}.items():
        data = request("GET", f"/api/codes?{query}", Authorization=KEY)
        yield Case(f"counts: {query}", data, 400, "bad-request", parameter)
    yield Case("unknown code", request("GET", "/api/codes/none", Authorization=KEY), 404, "unknown-code")
    yield Case("redeeming nothing", request("POST", "/api/codes/none/redeem", Authorization=KEY), 404, "unknown-code")
    for path in _NOWHERE:
        yield Case(f"nowhere: {path}", request("GET", path), 404, "not-found")
    yield Case("unknown coupon", request("GET", "/api/coupons/none"), 404, "unknown-coupon")
    yield Case("claims of an unknown coupon", request("GET", "/api/coupons/none/claims"), 404, "unknown-coupon")
    data = request("GET", "/api/coupons/none/claims/export", Authorization=KEY)
    yield Case("export of an unknown coupon", data, 404, "unknown-coupon")
    yield Case("claim of an unknown coupon", post(CLAIM.replace(b"plenty", b"none")), 404, "unknown-coupon")
    asked = post(b'{"user_id": "ann"}', "/api/coupons/none/eligibility")
    yield Case("eligibility for an unknown coupon", asked, 404, "unknown-coupon")
    gone = request("DELETE", "/api/coupons/none/deny-list", None, Authorization=KEY)
    yield Case("list of an unknown coupon", gone, 404, "unknown-coupon")
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
