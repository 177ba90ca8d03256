"""Requests and answers that only HTTP has. `claimsvc.representations` has those that the command line shares.

Both are the source of the OpenAPI document. Requests are pydantic models, because they validate; answers are plain
dataclasses, because mypy has checked them already and orjson writes them as they are.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from claimsvc import domain
from claimsvc.http.server.problems import CheckBody, ProblemBody
from claimsvc.representations.coupons import CouponBody
from claimsvc.representations.fields import Attributes, CouponName, CouponType, HoldSeconds, Request, UserId


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
