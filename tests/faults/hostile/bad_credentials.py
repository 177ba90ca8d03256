"""Whoever may not offer or change coupons or open locks, whatever is sent for a key."""

from collections.abc import Iterator

from tests.faults.hostile.case import KEY, Case
from tests.support.admin import ADMIN_DIGEST, ADMIN_KEY
from tests.support.raw_http import request

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
_OF_COUPONS = (
    ("PATCH", "/api/coupons/plenty", b'{"amount": 5000}'),
    ("PATCH", "/api/coupons/claim", b'{"amount": 5000}'),
    ("POST", "/api/coupons/plenty/archive", None),
    ("GET", "/api/coupons/plenty/claims/export", None),
    ("DELETE", "/api/users/ann", None),
    ("DELETE", "/api/coupons/plenty/deny-list", None),
    ("PUT", "/api/coupons/plenty/allow-list", b"ann"),
)


def credentials() -> Iterator[Case]:
    body = b'{"name": "new", "amount": 5}'
    for name, credentials in _NO_CREDENTIALS.items():
        headers = {} if credentials is None else {"Authorization": credentials}
        data = request("POST", "/api/coupons", body, **headers)
        yield Case(f"credentials: {name}", data, 401, "unauthorized")
        data = request("DELETE", "/api/locks/plenty", b'{"reason": "because"}', **headers)
        yield Case(f"credentials for a lock: {name}", data, 401, "unauthorized")
        for method, path, its_body in _OF_COUPONS:
            data = request(method, path, its_body, **headers)
            yield Case(f"credentials for {method} {path}: {name}", data, 401, "unauthorized")
        yield Case(f"credentials for locks: {name}", request("GET", "/api/locks", None, **headers), 401, "unauthorized")
        yield Case(f"credentials for audit: {name}", request("GET", "/api/audit", None, **headers), 401, "unauthorized")
    # Who asks is settled first: whoever may not is told nothing about the body.
    yield Case("credentials: none, and a bad body", request("POST", "/api/coupons", b"{"), 401, "unauthorized")
