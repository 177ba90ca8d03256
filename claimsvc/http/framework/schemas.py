"""What goes over the wire. These models validate requests, shape answers, and are the source of the OpenAPI document.

Requests are pydantic models, because they validate; answers are plain dataclasses, because mypy has checked them
already and orjson writes them as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from claimsvc import domain
from claimsvc.http.server.problems import CheckBody, ProblemBody

CouponName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.COUPON_NAME_PATTERN,
        description="1 to 255 of the characters A-Z a-z 0-9 . _ -, and not dots only",
        examples=["summer-sale"],
    ),
]
UserId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.USER_ID_PATTERN,
        description="1 to 255 visible ASCII characters, without blanks",
        examples=["user-1"],
    ),
]
Amount = Annotated[
    int, Field(ge=1, le=domain.MAX_AMOUNT, description="a whole number from 1 to 2147483647", examples=[100])
]


Strategy = Annotated[
    domain.StrategyName,
    Field(
        # Strict models take no strings for enumerations, but a string is all that JSON has.
        strict=False,
        description="how its claims are admitted: `redlock` (under the lock), `row_lock` (PostgreSQL alone) or "
        "`counter` (sorted by a counter in Redis first)",
        examples=["redlock"],
    ),
]


CouponType = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.COUPON_NAME_PATTERN,
        description="what groups coupons: 1 to 255 of the characters A-Z a-z 0-9 . _ -, and not dots only",
        examples=["welcome"],
    ),
]
HoldSeconds = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_HOLD_SECONDS,
        description="for how many seconds the unit is held until it is confirmed, from 1 to 86400",
        examples=[300],
    ),
]


# Beyond it programs read different numbers from the same digits (RFC 7493), and jsonb gives 1e300 back as a whole one.
MAX_NUMBER = 2**53 - 1
Number = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)] | Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
# PostgreSQL has no U+0000 in its texts, nor in its jsonb.
Scalar = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | bool | Number
Attributes = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], Scalar],
    Field(
        max_length=20,
        description="what is said of the user, by at most 20 names: texts, numbers, true or false",
        examples=[{"country": "KR"}],
        json_schema_extra={"additionalProperties": False},
    ),
]


class Request(BaseModel):
    """What every part of a request obeys: exact types, no field that is not known, no input in an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def _either(schema: dict[str, Any]) -> None:
    for name in ("coupon_name", "type"):
        del schema["properties"][name]["default"]
    schema["not"] = {"required": ["coupon_name", "type"]}


class ClaimCoupon(Request):
    """A user who wants one unit of a coupon, of any coupon of a type, or of any. Empty is what was left out."""

    model_config = ConfigDict(json_schema_extra=_either)

    user_id: UserId
    coupon_name: CouponName = ""
    type: CouponType = ""
    hold_seconds: HoldSeconds | None = None
    attributes: Attributes | None = None


def bytes_of_jsonb(value: object) -> int:
    """About as many as PostgreSQL takes to write it: 1e-300 is three hundred digits there."""
    if isinstance(value, Mapping):
        return sum(bytes_of_jsonb(name) + bytes_of_jsonb(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return sum(map(bytes_of_jsonb, value))
    return len(f"{Decimal(repr(value)):f}" if isinstance(value, float) else orjson.dumps(value)) + 2


@dataclass(frozen=True, slots=True)
class CouponBody:
    """A coupon: `amount` units were offered, `remaining_amount` of them are left."""

    name: CouponName
    # Not at least one: of a coupon with codes there may be fewer than were offered first.
    amount: Annotated[int, Field(ge=0, le=domain.MAX_AMOUNT, examples=[100])]
    remaining_amount: Annotated[int, Field(ge=0, le=domain.MAX_AMOUNT, examples=[42])]
    strategy: Strategy
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CouponPageBody:
    """Some of the coupons, by name. `next_cursor` is null on the last page."""

    items: list[CouponBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ClaimBody:
    """One unit of a coupon, held by one user."""

    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    coupon_name: CouponName
    user_id: UserId
    state: domain.ClaimState
    claimed_at: datetime
    expires_at: Annotated[datetime | None, Field(description="of a claim that is held: when it expires")]
    ended_at: Annotated[datetime | None, Field(description="when it was cancelled, or had expired")]
    code: Annotated[
        str | None,
        Field(description="its own, where the coupon has codes; null while it is held, and in listings"),
    ]


@dataclass(frozen=True, slots=True)
class ClaimPageBody:
    """Some of a coupon's claims, oldest first. `next_cursor` is null on the last page."""

    items: list[ClaimBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LiveBody:
    """The process answers."""

    status: Literal["ok"]


@dataclass(frozen=True, slots=True)
class ReadyBody:
    """Every dependency is usable. `checks` is empty unless `?verbose` was asked for."""

    status: Literal["ok"]
    checks: dict[str, CheckBody]


@dataclass(frozen=True, slots=True)
class ProblemKindBody:
    """What a kind of problem means, and what to do about it."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    meaning: str
    advice: str


@dataclass(frozen=True, slots=True)
class AlreadyClaimedBody(ProblemBody):
    """The user has a claim already: this one."""

    claim: ClaimBody


@dataclass(frozen=True, slots=True)
class ClaimProblemBody(ProblemBody):
    """What became of the claim."""

    claim: ClaimBody


@dataclass(frozen=True, slots=True)
class NotStartedBody(ProblemBody):
    """When the coupon can be claimed."""

    starts_at: datetime


@dataclass(frozen=True, slots=True)
class AmountBelowClaimedBody(ProblemBody):
    """How many units are claimed or held."""

    claimed: int


@dataclass(frozen=True, slots=True)
class QuotaExceededBody(ProblemBody):
    """Which quotas are exceeded; the member has its name from the draft of the headers."""

    violated_policies: Annotated[list[str], Field(serialization_alias="violated-policies")]


def coupon_body(coupon: domain.Coupon) -> CouponBody:
    """A coupon as it goes over the wire."""
    return CouponBody(coupon.name, coupon.amount, coupon.remaining_amount, coupon.strategy, coupon.created_at)


def claim_body(claim: domain.Claim) -> ClaimBody:
    """A claim as it goes over the wire."""
    return ClaimBody(
        claim.id,
        claim.coupon_name,
        claim.user_id,
        claim.state,
        claim.claimed_at,
        claim.expires_at,
        claim.ended_at,
        claim.code,
    )
