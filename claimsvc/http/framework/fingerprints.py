"""Fingerprints of requests with an idempotency key: a repetition has the same, another request has another.

A fingerprint is of the method, the path, and the parsed JSON body as it was sent. The order of names and the form of
numbers (`5.0` is 5) do not matter. Defaults are not added, so a body keeps its fingerprint when its schema gets a
field. The first byte is the version. Fingerprints of the version before had none, and were of the validated body with
its defaults; answers that were stored under them are still found.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel

SENT: web.RequestKey[Mapping[str, Any]] = web.RequestKey("sent", Mapping)
"""The parsed JSON body as it was sent. Absent if the request has none."""

_VERSION = b"\x02"
# What the bodies consisted of then. Never add to it: fields that were added since were in no fingerprint.
_FORMER_FIELDS = {
    "ClaimCoupon": {"user_id", "coupon_name", "type", "hold_seconds", "attributes"},
    "CheckEligibility": {"user_id", "attributes"},
    "CreateCoupon": {
        "name",
        "amount",
        "strategy",
        "starts_at",
        "ends_at",
        "paused",
        "per_user_limit",
        "type",
        "benefit",
        "metadata",
        "rules",
    },
    "GenerateCodes": {"count", "pattern", "expires_at"},
    "RedeemCode": {"user_id"},
}


def fingerprint(method: str, path: str, sent: Mapping[str, Any] | None) -> bytes:
    """The fingerprint of a request.

    Args:
        method: the HTTP method.
        path: the decoded path.
        sent: the parsed body as it was sent; None, or empty, if there was none.
    """
    return _VERSION + _digest(method, path, sent or None)


def former_fingerprint(method: str, path: str, body: BaseModel | None) -> bytes:
    """The fingerprint that the version before gave the request.

    Args:
        method: the HTTP method.
        path: the decoded path.
        body: the validated body; None if the route has none.
    """
    if body is None:
        return _digest(method, path, None)
    return _digest(method, path, body.model_dump(mode="json", include=_FORMER_FIELDS.get(type(body).__name__)))


def _digest(method: str, path: str, document: Mapping[str, Any] | None) -> bytes:
    return hashlib.sha256(orjson.dumps([method, path, document], option=orjson.OPT_SORT_KEYS)).digest()
