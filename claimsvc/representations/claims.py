"""Claims: showing one, alone and in lists."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import Field

from claimsvc import domain
from claimsvc.representations.benefits import benefit_body
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
class ClaimWithoutTermsBody(ClaimWithoutCodeBody):
    """A claim: one unit of a coupon, for one user. Its type and benefit are those of its coupon."""

    code: Annotated[
        str | None,
        Field(description="the claim's code, if the coupon has codes; null while the claim is held"),
    ]


_OF_ITS_CODE = "absent unless its code has a type or a benefit of its own"
OwnType = Annotated[CouponType | None, Field(description=f"its type; {_OF_ITS_CODE}")]
OwnBenefit = Annotated[
    dict[str, Any] | None,
    Field(description=f"what it is worth; {_OF_ITS_CODE}", examples=[{"percent_off": 15}]),
]


@dataclass(frozen=True, slots=True)
class ClaimBody(ClaimWithoutTermsBody):
    """A claim: one unit of a coupon, for one user."""

    type: OwnType = None
    benefit: OwnBenefit = None


@dataclass(frozen=True, slots=True)
class ReadClaimBody(ClaimWithoutCodeBody):
    """A claim as it is read: a `ClaimBody`, or a `ClaimWithoutCodeBody` if the caller may not see codes."""

    code: Annotated[
        str | None, Field(description="the claim's code, as when it was claimed; absent if the caller may not see it")
    ] = None
    type: OwnType = None
    benefit: OwnBenefit = None


@dataclass(frozen=True, slots=True)
class UserClaimBody(ClaimWithoutCodeBody):
    """A claim in a list of its user's claims, with its type and benefit: those of its code, if that has some of its own
    and may be seen, or else those of its coupon."""

    type: CouponType | None
    benefit: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class UserClaimWithCodeBody(UserClaimBody):
    """The same for callers who may see codes: the user itself, and keys with the scope `codes:read`."""

    code: Annotated[
        str | None, Field(description="the claim's code; null while the claim is held, and if the coupon has no codes")
    ]


def claim_body(claim: domain.Claim) -> ClaimBody:
    """The body of a claim, to be encoded."""
    # Not a `ClaimBody`: it is made for each claim, and encoded in a third of the time.
    body: Any = {
        "id": claim.id,
        "coupon_name": claim.coupon_name,
        "user_id": claim.user_id,
        "state": claim.state,
        "claimed_at": claim.claimed_at,
        "expires_at": claim.expires_at,
        "ended_at": claim.ended_at,
        "code": claim.code,
    }
    if claim.terms is not None:
        body |= {"type": claim.terms.type, "benefit": benefit_body(claim.terms.benefit)}
    return cast("ClaimBody", body)


def listed_claim_body(claim: domain.Claim, *, shows_code: bool) -> ClaimBody | ClaimWithoutCodeBody:
    """The body of a claim in a list of its coupon's claims."""
    return claim_body(claim) if shows_code else ClaimWithoutCodeBody(*all_but_code(claim))


def user_claim_body(listed: domain.UserClaim) -> UserClaimWithCodeBody | UserClaimBody:
    """The body of a claim in a list of its user's claims."""
    terms = listed.claim.terms or listed
    values = (*all_but_code(listed.claim), terms.type, benefit_body(terms.benefit))
    return UserClaimWithCodeBody(*values, listed.claim.code) if listed.shows_code else UserClaimBody(*values)


def all_but_code(
    claim: domain.Claim,
) -> tuple[str, str, str, domain.ClaimState, datetime, datetime | None, datetime | None]:
    """The values of a claim's body, up to its code."""
    return (
        claim.id,
        claim.coupon_name,
        claim.user_id,
        claim.state,
        claim.claimed_at,
        claim.expires_at,
        claim.ended_at,
    )
