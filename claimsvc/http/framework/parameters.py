"""What paths and queries may contain, and the cursors of keyset pages.

A cursor is a position in lower-case hex: opaque, safe in a URL, and exact in a pattern, so that whatever the OpenAPI
document calls a cursor is one.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.representations.audit import AuditSelection
from claimsvc.representations.fields import CouponName, Request

MAX_PAGE = 100
DEFAULT_PAGE = 20

_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Hex of a name: its bytes one by one, with at least one that is not a dot.
_HEX_BUT_DOT = "2d|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]"
_NAME_CURSOR = rf"^(2e)*({_HEX_BUT_DOT})(2e|{_HEX_BUT_DOT})*$"
# 8 bytes of microseconds since 1970, kept below the year 8821 by the first byte; then the 16 bytes of the id.
_CLAIM_CURSOR = r"^0[0-2][0-9a-f]{46}$"
# The same time, and 8 bytes of a number that is not negative.
_AUDIT_CURSOR = r"^0[0-2][0-9a-f]{14}[0-7][0-9a-f]{15}$"


class CouponPath(Request):
    """The name in a coupon's path."""

    name: CouponName


class ClaimPath(Request):
    """The id in a claim's path."""

    # Kept a string here: UUID() also takes braces, URNs and bare hex, and a claim has one path.
    id: Annotated[
        str,
        Field(
            pattern=r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
            description="a UUID with its four hyphens",
            json_schema_extra={"format": "uuid"},
            examples=["019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"],
        ),
    ]


class UserPath(Request):
    """The id in a user's path."""

    id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=domain.MAX_NAME_LENGTH,
            # URLs treat `.` and `..` as steps: whoever is called that can be forgotten by `claimsvc user erase`.
            pattern=r"^(\.{0,2}[!-\-/-~]|\.{3})[!-~]*$",
            description="1 to 255 visible ASCII characters, and not one or two dots alone",
            examples=["user-1"],
        ),
    ]


class LockPath(Request):
    """The coupon in a lock's path."""

    coupon_name: CouponName


class ProblemPath(Request):
    """The name of a kind of problem."""

    slug: Annotated[
        str, Field(pattern=r"^[a-z-]{1,64}$", description="the last part of a problem's `type`", examples=["sold-out"])
    ]


def _whole_number(value: Any) -> Any:
    # A query is text; pydantic's own reading of text also takes "1_0", " 10" and "10.0".
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


Limit = Annotated[
    int,
    Field(ge=1, le=MAX_PAGE, description=f"a number of items from 1 to {MAX_PAGE}; it is {DEFAULT_PAGE} unless told"),
    # Last, and so applied first: before the bounds, which otherwise pydantic does not describe as JSON Schema does.
    BeforeValidator(_whole_number),
]


class CouponsQuery(Request):
    """Which page of the coupons."""

    search: Annotated[
        str,
        Field(
            max_length=domain.MAX_NAME_LENGTH,
            pattern=r"^[A-Za-z0-9._-]*$",
            description="a part of the name, in any case, of the characters A-Z a-z 0-9 . _ -; empty for all",
            examples=["sale"],
        ),
    ] = ""
    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            max_length=2 * domain.MAX_NAME_LENGTH,
            pattern=_NAME_CURSOR,
            description="`next_cursor` of the page before",
            examples=["73756d6d65722d73616c65"],
        ),
    ] = ""

    def after(self) -> str | None:
        """The last name of the page before."""
        return bytes.fromhex(self.cursor).decode("ascii") if self.cursor else None


class ClaimsQuery(Request):
    """Which page of a coupon's claims."""

    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            pattern=_CLAIM_CURSOR,
            description="`next_cursor` of the page before",
            examples=["00064680d83b8a00019b2c5e7a317c429f0e2d4b8a6c1e90"],
        ),
    ] = ""

    def after(self) -> domain.ClaimPosition | None:
        """The position of the last claim of the page before."""
        if not self.cursor:
            return None
        position = bytes.fromhex(self.cursor)
        return domain.ClaimPosition(_time_of(position[:8]), str(UUID(bytes=position[8:])))


class AuditQuery(AuditSelection):
    """Which page of which entries of the audit."""

    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            pattern=_AUDIT_CURSOR,
            description="`next_cursor` of the page before",
            examples=["00064680d83b8a00000000000000002a"],
        ),
    ] = ""

    def after(self) -> domain.AuditPosition | None:
        """The position of the last entry of the page before."""
        if not self.cursor:
            return None
        position = bytes.fromhex(self.cursor)
        return domain.AuditPosition(_time_of(position[:8]), int.from_bytes(position[8:]))


class ReadyQuery(Request):
    """How much `/readyz` says."""

    verbose: Annotated[Literal["", "0", "1", "false", "true"], Field(description="name each dependency")] = "0"

    def is_verbose(self) -> bool:
        """`?verbose` alone is a yes."""
        return self.verbose in {"", "1", "true"}


def coupon_cursor(coupon: domain.Coupon) -> str:
    """The cursor of the page after this coupon."""
    return coupon.name.encode("ascii").hex()


def claim_cursor(claim: domain.Claim) -> str:
    """The cursor of the page after this claim."""
    return _hex_of(claim.claimed_at) + UUID(claim.id).hex


def audit_cursor(position: domain.AuditPosition) -> str:
    """The cursor of the page after the entry at this position."""
    return _hex_of(position.at) + position.id.to_bytes(8).hex()


def _hex_of(time: datetime) -> str:
    return ((time - _EPOCH) // _MICROSECOND).to_bytes(8).hex()


def _time_of(microseconds: bytes) -> datetime:
    return _EPOCH + int.from_bytes(microseconds) * _MICROSECOND
