"""Models of paths and queries, and the cursors of keyset pagination.

A cursor is a position in lower-case hex. Hex is safe in URLs, and a pattern in the OpenAPI document can describe valid
cursors exactly.
"""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.representations.audit import AuditSelection
from claimsvc.representations.fields import TYPE_OR_NONE, CouponName, Request, TypeOrNone

MAX_PAGE = 100
DEFAULT_PAGE = 20

_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A name's bytes in hex: words with single blanks between them, of which one is not only dots.
_HEX_BUT_DOT = "2d|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]"
_NAME_CURSOR = rf"^((2e)+20)*(2e)*({_HEX_BUT_DOT})(2e|{_HEX_BUT_DOT})*(20(2e|{_HEX_BUT_DOT})+)*$"
# 8 bytes of microseconds since 1970, limited by the first byte to years before 8821; then the 16 bytes of the id.
_CLAIM_CURSOR = r"^0[0-2][0-9a-f]{46}$"
# The same time; then 8 bytes of a number that is not negative.
_AUDIT_CURSOR = r"^0[0-2][0-9a-f]{14}[0-7][0-9a-f]{15}$"


class CouponPath(Request):
    """The path of a coupon."""

    name: CouponName


class NewCouponPath(Request):
    """The path of a coupon, with the one of the example that creates a coupon: for what cannot be undone."""

    name: Annotated[CouponName, Field(examples=["summer-sale"])]


# A string, because UUID() would also accept braces, URNs and bare hex, but a claim has one path.
_Uuid = Annotated[
    str,
    Field(
        pattern=r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
        description="a UUID with four hyphens",
        json_schema_extra={"format": "uuid"},
        examples=["019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"],
    ),
]


class ClaimPath(Request):
    """The path of a claim."""

    id: _Uuid


class TicketPath(Request):
    """The path of a ticket."""

    id: _Uuid


_UserInPath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        # `.` and `..` have a meaning in URLs; the command line takes users of these names.
        pattern=r"^(\.{0,2}[!-\-/-~]|\.{3})[!-~]*$",
        description="1 to 255 visible ASCII characters, but not `.` or `..`",
        examples=["user-1"],
    ),
]


class UserPath(Request):
    """The path of a user."""

    id: _UserInPath


class UserClaimsPath(Request):
    """The path of a user's claims."""

    user_id: _UserInPath


class LockPath(Request):
    """The path of a coupon's lock."""

    coupon_name: CouponName


class ProblemPath(Request):
    """The path of a problem type."""

    slug: Annotated[
        str, Field(pattern=r"^[a-z-]{1,64}$", description="the last part of a problem's `type`", examples=["sold-out"])
    ]


def whole_number(value: Any) -> Any:
    """The integer of a query's digits; anything else as it is, for pydantic to refuse."""
    # pydantic's own conversion would also accept "1_0", " 10" and "10.0".
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


Limit = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_PAGE,
        description=f"an integer from 1 to {MAX_PAGE}: the number of items on a page; {DEFAULT_PAGE} by default",
        examples=[50],
    ),
    # Listed last, so that it runs first. In front of the bounds it would keep pydantic from documenting them.
    BeforeValidator(whole_number),
]


def some_of(values: type[StrEnum]) -> str:
    """The pattern of some of these values, separated by commas; empty for all."""
    one = "|".join(values)
    return rf"^(?:(?:{one})(?:,(?:{one})){{0,{len(values) - 1}}})?$"


ClaimStates = Annotated[
    str,
    Field(
        pattern=some_of(domain.ClaimState),
        description="one or more of `active`, `held`, `cancelled`, `expired`, separated by commas; empty for all",
        examples=["active,held"],
    ),
]


class CouponsQuery(Request):
    """The query of a list of coupons."""

    search: Annotated[
        str,
        Field(
            max_length=domain.MAX_NAME_LENGTH,
            pattern=domain.COUPON_SEARCH_PATTERN,
            description=f"{domain.COUPON_SEARCH_RULE}, case-insensitive; empty for all coupons",
            examples=["sale"],
        ),
    ] = ""
    type: Annotated[TypeOrNone | None, Field(description=f"{TYPE_OR_NONE}; absent for all coupons")] = None
    state: Annotated[
        str,
        Field(
            pattern=some_of(domain.CouponState),
            description="one or more of `open`, `upcoming`, `paused`, `sold-out`, `ended`, `archived`, separated by "
            "commas; empty for all but archived ones",
            examples=["open,upcoming"],
        ),
    ] = ""
    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            max_length=2 * domain.MAX_NAME_LENGTH,
            pattern=_NAME_CURSOR,
            description="`next_cursor` of the previous page",
            examples=["73756d6d65722d73616c65"],
        ),
    ] = ""

    def filter(self) -> domain.CouponFilter:
        """Which coupons are listed."""
        if not self.state:
            return domain.CouponFilter(self.search, self.type)
        return domain.CouponFilter(self.search, self.type, frozenset(map(domain.CouponState, self.state.split(","))))

    def after(self) -> str | None:
        """The last name of the previous page; None for the first page."""
        return bytes.fromhex(self.cursor).decode("ascii") if self.cursor else None


class ClaimsQuery(Request):
    """The query of a list of claims."""

    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            pattern=_CLAIM_CURSOR,
            description="`next_cursor` of the previous page",
            examples=["00064680d83b8a00019b2c5e7a317c429f0e2d4b8a6c1e90"],
        ),
    ] = ""

    def last(self) -> domain.ClaimPosition | None:
        """The position of the last claim of the previous page; None for the first page."""
        if not self.cursor:
            return None
        position = bytes.fromhex(self.cursor)
        return domain.ClaimPosition(_time_of(position[:8]), str(UUID(bytes=position[8:])))


class UserClaimsQuery(ClaimsQuery):
    """The query of a list of a user's claims."""

    state: ClaimStates = ""

    def states(self) -> frozenset[domain.ClaimState]:
        """The states of the claims that are listed."""
        return frozenset(map(domain.ClaimState, self.state.split(","))) if self.state else domain.EVERY_CLAIM_STATE


class AuditQuery(AuditSelection):
    """The query of a list of audit entries."""

    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            pattern=_AUDIT_CURSOR,
            description="`next_cursor` of the previous page",
            examples=["00064680d83b8a00000000000000002a"],
        ),
    ] = ""

    def after(self) -> domain.AuditPosition | None:
        """The position of the last entry of the previous page; None for the first page."""
        if not self.cursor:
            return None
        position = bytes.fromhex(self.cursor)
        return domain.AuditPosition(_time_of(position[:8]), int.from_bytes(position[8:]))


class ReadyQuery(Request):
    """The query of `/readyz`."""

    verbose: Annotated[
        Literal["", "0", "1", "false", "true"],
        Field(description="`1`, `true` or empty to list each dependency; `0` or `false` not to"),
    ] = "0"

    def is_verbose(self) -> bool:
        """Whether the response lists each dependency; `?verbose` without a value means yes."""
        return self.verbose in {"", "1", "true"}


def coupon_cursor(coupon: domain.Coupon) -> str:
    """The cursor of the page that begins after this coupon."""
    return coupon.name.encode("ascii").hex()


def claim_cursor(claim: domain.Claim) -> str:
    """The cursor of the page that begins after this claim in its list."""
    return _hex_of(claim.claimed_at) + UUID(claim.id).hex


def audit_cursor(position: domain.AuditPosition) -> str:
    """The cursor of the page that begins after this position."""
    return _hex_of(position.at) + position.id.to_bytes(8).hex()


def _hex_of(time: datetime) -> str:
    return ((time - _EPOCH) // _MICROSECOND).to_bytes(8).hex()


def _time_of(microseconds: bytes) -> datetime:
    return _EPOCH + int.from_bytes(microseconds) * _MICROSECOND
