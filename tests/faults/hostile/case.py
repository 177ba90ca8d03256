"""A bad request: what is sent, byte for byte, and what the contract says of it."""

from dataclasses import dataclass
from typing import Any

from tests.support.admin import ADMIN_KEY
from tests.support.raw_http import request

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
