"""Models of requests and responses that only HTTP has. The command line shares those in `claimsvc.representations`.

The OpenAPI document is generated from both. Requests are pydantic models, because they need validation. Responses are
dataclasses: mypy checks them, and orjson encodes them directly. A field's description completes the sentence "it must
be ..." in error messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from claimsvc.http.server.problems import CheckBody, ProblemBody
from claimsvc.representations.claims import (
    ClaimBody,
    ClaimWithoutCodeBody,
    UserClaimBody,
    UserClaimWithCodeBody,
)
from claimsvc.representations.coupons import ListedCouponBody
from claimsvc.representations.fields import Attributes, CouponName, CouponType, HoldSeconds, Request, UserId
from claimsvc.representations.tickets import TicketBody


def _either(schema: dict[str, Any]) -> None:
    for name in ("coupon_name", "type"):
        del schema["properties"][name]["default"]
    schema["oneOf"] = [{"required": ["coupon_name"]}, {"required": ["type"]}]


class ClaimCoupon(Request):
    """A claim: one unit of a coupon, or of the oldest claimable coupon of a `type` (null: of those without a type)."""

    model_config = ConfigDict(json_schema_extra=_either)
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"user_id": "user-1", "coupon_name": "demo"}

    user_id: UserId
    # Empty if absent: what is sent is never empty.
    coupon_name: CouponName = ""
    type: CouponType | None = ""
    hold_seconds: HoldSeconds | None = None
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class CouponPageBody:
    """A page of coupons, ordered by name. `next_cursor` is null on the last page."""

    items: list[ListedCouponBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ClaimPageBody:
    """A page of a coupon's claims, oldest first. `next_cursor` is null on the last page."""

    items: list[ClaimBody | ClaimWithoutCodeBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class UserClaimPageBody:
    """A page of a user's claims, newest first. `next_cursor` is null on the last page."""

    items: list[UserClaimWithCodeBody | UserClaimBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LiveBody:
    """The process is alive."""

    status: Literal["ok"]


@dataclass(frozen=True, slots=True)
class ReadyBody:
    """All dependencies are usable. `checks` is empty without `?verbose`."""

    status: Literal["ok"]
    checks: dict[str, CheckBody]


@dataclass(frozen=True, slots=True)
class ProblemKindBody:
    """The meaning of a problem type, and what clients should do about it."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    meaning: str
    advice: str


@dataclass(frozen=True, slots=True)
class AlreadyClaimedBody(ProblemBody):
    """The user already has a claim; `claim` is the existing one."""

    claim: ClaimBody


@dataclass(frozen=True, slots=True)
class ClaimProblemBody(ProblemBody):
    """The claim has ended; `claim` shows its current state."""

    claim: ClaimBody


@dataclass(frozen=True, slots=True)
class TicketProblemBody(ProblemBody):
    """The ticket does not wait any more; `ticket` shows its current state, without a code."""

    ticket: TicketBody


@dataclass(frozen=True, slots=True)
class NotStartedBody(ProblemBody):
    """The campaign has not started; the coupon can be claimed from `starts_at`."""

    starts_at: datetime


@dataclass(frozen=True, slots=True)
class AmountBelowClaimedBody(ProblemBody):
    """The amount is too small; `claimed` units are claimed or held."""

    claimed: int


@dataclass(frozen=True, slots=True)
class QuotaExceededBody(ProblemBody):
    """A quota is exceeded; `violated-policies` lists the names of the exceeded quotas."""

    violated_policies: Annotated[list[str], Field(serialization_alias="violated-policies")]
