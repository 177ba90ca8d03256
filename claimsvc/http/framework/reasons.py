"""Reasons, which the audit records. That of a DELETE is in the query or in the body, or there is none.

Many clients and proxies send no body with DELETE, and some drop one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from claimsvc.representations.fields import Reason, ReasonOrNone, Request


class ReasonQuery(Request):
    """The query of a DELETE that may have a reason."""

    reason: ReasonOrNone = ""


class OptionalReason(Request):
    """Why something is cancelled or released; the reason is recorded in the audit."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"reason": "bought something else"}

    reason: ReasonOrNone = ""


class TakeBack(Request):
    """Why a redemption is taken back; the reason is recorded in the audit."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"reason": "the payment failed"}

    reason: Reason


NO_REASON = OptionalReason()


def reason_of(query: ReasonQuery, body: OptionalReason) -> str:
    """Return the reason; empty if there is none. If both have one, the body's counts: OpenAPI cannot exclude that."""
    return body.reason or query.reason
