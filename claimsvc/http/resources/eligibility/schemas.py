"""Models of eligibility. `claimsvc.representations.user_lists` reads the lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from claimsvc import domain
from claimsvc.http.framework.problem_bodies import ReasonBody
from claimsvc.representations.fields import Attributes, CouponName, Request, UserId


class CheckEligibility(Request):
    """The user whose eligibility is checked."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"user_id": "user-1", "attributes": {"country": "KR"}}

    user_id: UserId
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class EligibilityBody:
    """Whether a claim would succeed now, and all reasons why not."""

    eligible: bool
    reasons: list[ReasonBody]


@dataclass(frozen=True, slots=True)
class ListBody:
    """A coupon's list. `users` is the number of users on it; null if there is no list."""

    coupon_name: CouponName
    kind: domain.ListKind
    users: Annotated[int | None, Field(ge=0, le=domain.MAX_LISTED_USERS, examples=[100_000])]
