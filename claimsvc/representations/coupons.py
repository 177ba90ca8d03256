"""Coupons and their campaigns: creating, changing and showing them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from claimsvc import domain
from claimsvc.application.coupons import MAX_CLAIMANTS
from claimsvc.representations.fields import (
    IN_SLICES,
    MAX_ENTRIES,
    MAX_NUMBER,
    Amount,
    CouponName,
    CouponType,
    Number,
    Request,
    Strategy,
    UserId,
    at_most,
    bytes_of_jsonb,
)
from claimsvc.representations.rules import CouponRules, rules_body
from claimsvc.representations.times import EndsAt, StartsAt

MAX_METADATA_BYTES = 8192


PerUserLimit = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_PER_USER_LIMIT,
        description="the number of units that one user may have at a time, from 1 to 1000",
        examples=[1],
    ),
]
Uses = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_USES,
        description="how often a claim, or its code, may be redeemed, from 1 to 1000",
        examples=[1],
    ),
]


def _check_size(metadata: dict[str, Any]) -> dict[str, Any]:
    if bytes_of_jsonb(metadata) > MAX_METADATA_BYTES:
        raise ValueError(f"Larger than {MAX_METADATA_BYTES} bytes")
    return metadata


# PostgreSQL stores U+0000 neither in text nor in jsonb.
_Word = Annotated[str, Field(max_length=MAX_METADATA_BYTES, pattern=r"^[^\x00]*$")]
Metadata = Annotated[
    dict[_Word, _Word | bool | Number | None],
    IN_SLICES,
    AfterValidator(_check_size),
    Field(
        description="an object of strings, numbers, true, false or null, of at most 8192 bytes",
        examples=[{"channel": "app"}],
        json_schema_extra={"additionalProperties": False},
    ),
]


class PercentOff(Request):
    """A discount in per cent."""

    percent_off: Annotated[float, Field(gt=0, le=100, examples=[15])]


class AmountOff(Request):
    """A discount as an amount, in the smallest unit of a currency (ISO 4217)."""

    amount_off: Annotated[int, Field(ge=1, le=MAX_NUMBER, examples=[5000])]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["KRW"])]


class OtherBenefit(Request):
    """Any other benefit, as text."""

    text: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$", examples=["a free coffee"])]


Benefit = Annotated[
    PercentOff | AmountOff | OtherBenefit,
    Field(description="`percent_off`, or `amount_off` with `currency`, or `text`"),
    at_most(MAX_ENTRIES),
]


class CreateCoupon(Request):
    """A new coupon. Only `name` and `amount` are required."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"name": "summer-sale", "amount": 100}

    name: CouponName
    amount: Amount
    strategy: Strategy = domain.StrategyName.REDLOCK
    starts_at: StartsAt | None = None
    ends_at: EndsAt | None = None
    paused: bool = False
    per_user_limit: PerUserLimit = 1
    type: CouponType | None = None
    benefit: Benefit | None = None
    metadata: Metadata = Field(default_factory=dict)
    uses: Uses = 1
    rules: CouponRules | None = None

    def campaign(self) -> domain.Campaign:
        """The campaign of the new coupon."""
        return domain.Campaign(
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            paused=self.paused,
            per_user_limit=self.per_user_limit,
            type=self.type,
            benefit=self.benefit.model_dump() if self.benefit is not None else None,
            metadata=self.metadata,
            uses=self.uses,
            rules=self.rules.rules() if self.rules is not None else None,
        )


class ChangeCoupon(Request):
    """A change of a coupon. Omitted members stay unchanged, others are replaced entirely, and null removes a value."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"amount": 200}

    amount: Amount = 0
    starts_at: StartsAt | None = None
    ends_at: EndsAt | None = None
    paused: bool = False
    per_user_limit: PerUserLimit = 1
    type: CouponType | None = None
    benefit: Benefit | None = None
    metadata: Metadata = Field(default_factory=dict)
    uses: Uses = 1
    rules: CouponRules | None = None

    def change(self) -> Mapping[str, Any]:
        """The members that were sent: new values by the field names of `domain.Campaign`, and `amount`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.benefit is not None:
            given["benefit"] = self.benefit.model_dump()
        if self.rules is not None:
            given["rules"] = self.rules.rules()
        return given


@dataclass(frozen=True, slots=True)
class CouponBody:
    """A coupon: `amount` units are offered in all, and `remaining_amount` of them can still be claimed."""

    name: CouponName
    # It can fall to 0, because the amount of a coupon with codes follows its codes.
    amount: Annotated[int, Field(ge=0, le=domain.MAX_AMOUNT, examples=[100])]
    remaining_amount: Annotated[int, Field(ge=0, le=domain.MAX_AMOUNT, examples=[42])]
    strategy: Strategy
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CampaignBody(CouponBody):
    """A coupon and its campaign. It can be claimed from `starts_at` until just before `ends_at`, unless paused."""

    starts_at: datetime | None
    ends_at: datetime | None
    paused: bool
    archived_at: datetime | None
    per_user_limit: PerUserLimit
    type: CouponType | None
    benefit: dict[str, Any] | None
    metadata: dict[str, Any]
    uses: Uses
    rules: dict[str, Any] | None
    has_allow_list: bool
    has_deny_list: bool


@dataclass(frozen=True, slots=True)
class CampaignDetailBody(CampaignBody):
    """A coupon, its campaign and its first claimants, oldest first, as a consistent snapshot. If `claimed_count` is
    larger than the length of `claimed_by`, read `claims`."""

    claimed_by: Annotated[list[UserId], Field(max_length=MAX_CLAIMANTS)]
    claimed_count: Annotated[int, Field(ge=0, description="how many units are claimed or held", examples=[58])]
    claims: Annotated[str, Field(description="the path of all claims, in pages", examples=["/api/coupons/demo/claims"])]


def coupon_body(coupon: domain.Coupon) -> CouponBody:
    """The body of a coupon."""
    return CouponBody(coupon.name, coupon.amount, coupon.remaining_amount, coupon.strategy, coupon.created_at)


def campaign_body(coupon: domain.Coupon, campaign: domain.Campaign) -> CampaignBody:
    """The body of a coupon and its campaign."""
    return CampaignBody(**_values(coupon, campaign))


def campaign_detail_body(detail: domain.CouponDetail) -> CampaignDetailBody:
    """The body of a coupon, its campaign and its claimants."""
    return CampaignDetailBody(
        **_values(detail.coupon, detail.campaign),
        claimed_by=list(detail.claimed_by),
        claimed_count=detail.coupon.claimed_count,
        claims=f"/api/coupons/{detail.coupon.name}/claims",
    )


def _values(coupon: domain.Coupon, campaign: domain.Campaign) -> dict[str, Any]:
    return {
        "name": coupon.name,
        "amount": coupon.amount,
        "remaining_amount": coupon.remaining_amount,
        "strategy": coupon.strategy,
        "created_at": coupon.created_at,
        "starts_at": campaign.starts_at,
        "ends_at": campaign.ends_at,
        "paused": campaign.paused,
        "archived_at": campaign.archived_at,
        "per_user_limit": campaign.per_user_limit,
        "type": campaign.type,
        "benefit": dict(campaign.benefit) if campaign.benefit is not None else None,
        "metadata": dict(campaign.metadata),
        "uses": campaign.uses,
        "rules": rules_body(campaign.rules),
        "has_allow_list": campaign.has_allow_list,
        "has_deny_list": campaign.has_deny_list,
    }
