"""Claims: showing one, alone and in lists."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from claimsvc import domain
from claimsvc.representations.fields import CouponName, CouponType, UserId


@dataclass(frozen=True, slots=True)
class ClaimWithoutCodeBody:
    """A claim: one unit of a coupon, for one user. Whether it has a code is not shown."""

    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    coupon_name: CouponName
    user_id: UserId
    state: domain.ClaimState
    claimed_at: datetime
    expires_at: Annotated[datetime | None, Field(description="when the hold expires; null if the claim is not held")]
    ended_at: Annotated[datetime | None, Field(description="when the claim was cancelled or its hold expired")]


@dataclass(frozen=True, slots=True)
class ClaimBody(ClaimWithoutCodeBody):
    """A claim: one unit of a coupon, for one user."""

    code: Annotated[
        str | None,
        Field(description="the claim's code, if the coupon has codes; null while the claim is held"),
    ]


@dataclass(frozen=True, slots=True)
class UserClaimBody(ClaimWithoutCodeBody):
    """A claim in a list of its user's claims, with the type and the benefit of its coupon."""

    type: CouponType | None
    benefit: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class UserClaimWithCodeBody(UserClaimBody):
    """The same for callers who may see codes: the user itself, and keys with the scope `codes:read`."""

    code: Annotated[
        str | None, Field(description="the claim's code; null while the claim is held, and if the coupon has no codes")
    ]


def claim_body(claim: domain.Claim) -> ClaimBody:
    """The body of a claim."""
    return ClaimBody(*_all_but_code(claim), claim.code)


def listed_claim_body(claim: domain.Claim, *, shows_code: bool) -> ClaimBody | ClaimWithoutCodeBody:
    """The body of a claim in a list of its coupon's claims."""
    return claim_body(claim) if shows_code else ClaimWithoutCodeBody(*_all_but_code(claim))


def user_claim_body(listed: domain.UserClaim) -> UserClaimWithCodeBody | UserClaimBody:
    """The body of a claim in a list of its user's claims."""
    benefit = dict(listed.benefit) if listed.benefit is not None else None
    values = (*_all_but_code(listed.claim), listed.type, benefit)
    return UserClaimWithCodeBody(*values, listed.claim.code) if listed.shows_code else UserClaimBody(*values)


def _all_but_code(
    claim: domain.Claim,
) -> tuple[str, str, str, domain.ClaimState, datetime, datetime | None, datetime | None]:
    return (
        claim.id,
        claim.coupon_name,
        claim.user_id,
        claim.state,
        claim.claimed_at,
        claim.expires_at,
        claim.ended_at,
    )
