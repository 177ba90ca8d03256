"""What goes over the wire about who may claim: `claimsvc.representations` has the lists."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from claimsvc import domain
from claimsvc.http.framework.problem_bodies import ReasonBody
from claimsvc.representations.fields import Attributes, CouponName, Request, UserId


class CheckEligibility(Request):
    """A user who wants to know whether a coupon could be claimed."""

    user_id: UserId
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class EligibilityBody:
    """Whether a claim would succeed in this moment, and everything that is in its way."""

    eligible: bool
    reasons: list[ReasonBody]


@dataclass(frozen=True, slots=True)
class ListBody:
    """A coupon's list: of how many users, null if there is none."""

    coupon_name: CouponName
    kind: domain.ListKind
    users: Annotated[int | None, Field(ge=0, le=domain.MAX_LISTED_USERS, examples=[100_000])]
