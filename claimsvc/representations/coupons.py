"""Coupons and their campaigns: creating, changing and showing them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from pydantic import AfterValidator, Field

from claimsvc import domain
from claimsvc.application.coupons import MAX_CLAIMANTS
from claimsvc.representations.benefits import Benefit, benefit_body
from claimsvc.representations.fields import (
    IN_SLICES,
    NUMBER_RULE,
    Amount,
    CouponName,
    CouponType,
    Number,
    Paused,
    Request,
    Strategy,
    UserId,
    bytes_of_jsonb,
)
from claimsvc.representations.queues import (
    CouponQueue,
    QueueBody,
    WaitingList,
    WaitingListBody,
    queue_body,
    waiting_list_body,
)
from claimsvc.representations.rules import CouponRules, rules_body
from claimsvc.representations.times import EndsAt, StartsAt

MAX_METADATA_BYTES = 8192


PerUserLimit = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_PER_USER_LIMIT,
        description="an integer from 1 to 1000: the number of units that one user may have at a time",
        examples=[1],
    ),
]
Uses = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_USES,
        description="an integer from 1 to 1000: how often a claim, or its code, may be redeemed",
        examples=[1],
    ),
]


ClaimsPerUser = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_CLAIMS_PER_USER,
        description="the number of claims that one user may make in all, cancelled and expired ones included, from 1 "
        "to 1000000; if null or left out, 10 more than `per_user_limit`",
        examples=[11],
    ),
]


def _check_size(metadata: dict[str, Any]) -> dict[str, Any]:
    if bytes_of_jsonb(metadata) > MAX_METADATA_BYTES:
        raise ValueError(f"Larger than {MAX_METADATA_BYTES} bytes")
    return metadata


# PostgreSQL stores U+0000 neither in text nor in jsonb.
_Word = Annotated[
    str,
    Field(
        max_length=MAX_METADATA_BYTES,
        pattern=r"^[^\x00]*$",
        description="a string of at most 8192 characters, without U+0000",
        examples=["channel"],
    ),
]
_Value = Annotated[
    _Word | bool | Number | None,
    Field(
        description=f"a string of at most 8192 characters, {NUMBER_RULE}, true, false or null: metadata has no levels",
        examples=["app"],
    ),
]
Metadata = Annotated[
    dict[_Word, _Value],
    IN_SLICES,
    AfterValidator(_check_size),
    Field(
        description="an object of strings, numbers, true, false or null, of at most 8192 bytes",
        examples=[{"channel": "app"}],
        json_schema_extra={"additionalProperties": False},
    ),
]


class CreateCoupon(Request):
    """A new coupon. Only `name` and `amount` are required."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"name": "summer-sale", "amount": 100}

    name: CouponName
    amount: Amount
    strategy: Strategy = domain.StrategyName.REDLOCK
    starts_at: StartsAt | None = None
    ends_at: EndsAt | None = None
    paused: Paused = False
    per_user_limit: PerUserLimit = 1
    claims_per_user: ClaimsPerUser | None = None
    type: CouponType | None = None
    benefit: Benefit | None = None
    metadata: Metadata = Field(default_factory=dict)
    uses: Uses = 1
    rules: CouponRules | None = None
    queue: CouponQueue | None = None
    waiting_list: WaitingList | None = None

    def campaign(self) -> domain.Campaign:
        """The campaign of the new coupon."""
        return domain.Campaign(
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            paused=self.paused,
            per_user_limit=self.per_user_limit,
            claims_per_user=self.claims_per_user,
            type=self.type,
            benefit=self.benefit.model_dump() if self.benefit is not None else None,
            metadata=self.metadata,
            uses=self.uses,
            rules=self.rules.rules() if self.rules is not None else None,
            queue=self.queue.queue() if self.queue is not None else None,
            waiting_list_seconds=self.waiting_list.hold_seconds if self.waiting_list is not None else None,
        )


class ChangeCoupon(Request):
    """A change of a coupon. Omitted members stay unchanged, others are replaced entirely, and null removes a value."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"amount": 200}

    amount: Amount = 0
    starts_at: StartsAt | None = None
    ends_at: EndsAt | None = None
    paused: Paused = False
    per_user_limit: PerUserLimit = 1
    claims_per_user: ClaimsPerUser | None = None
    type: CouponType | None = None
    benefit: Benefit | None = None
    metadata: Metadata = Field(default_factory=dict)
    uses: Uses = 1
    rules: CouponRules | None = None
    queue: CouponQueue | None = None
    waiting_list: WaitingList | None = None

    def change(self) -> Mapping[str, Any]:
        """The members that were sent: new values by the field names of `domain.Campaign`, and `amount`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.benefit is not None:
            given["benefit"] = self.benefit.model_dump()
        if self.rules is not None:
            given["rules"] = self.rules.rules()
        if self.queue is not None:
            given["queue"] = self.queue.queue()
        if "waiting_list" in given:
            given["waiting_list_seconds"] = None if self.waiting_list is None else self.waiting_list.hold_seconds
            del given["waiting_list"]
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
class ListedCouponBody(CouponBody):
    """A coupon in a list. `state` says whether it can be claimed now, and if not, why: `open`, or the first of
    `archived`, `ended`, `paused`, `upcoming` and `sold-out` that applies."""

    state: domain.CouponState
    type: CouponType | None
    benefit: dict[str, Any] | None
    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class CampaignBody(CouponBody):
    """A coupon and its campaign. It can be claimed from `starts_at` until just before `ends_at`, unless paused."""

    starts_at: datetime | None
    ends_at: datetime | None
    paused: bool
    archived_at: datetime | None
    per_user_limit: PerUserLimit
    claims_per_user: ClaimsPerUser
    type: CouponType | None
    benefit: dict[str, Any] | None
    metadata: dict[str, Any]
    uses: Uses
    rules: dict[str, Any] | None
    queue: QueueBody | None
    waiting_list: WaitingListBody | None
    has_allow_list: bool
    has_deny_list: bool


@dataclass(frozen=True, slots=True)
class WarningBody:
    """Something that was accepted, and is probably not meant. `pointer` is the place (RFC 6901, as a URI fragment)."""

    detail: str
    pointer: Annotated[str, Field(examples=["#/rules/holds_not/0"])]


@dataclass(frozen=True, slots=True)
class WrittenCampaignBody(CampaignBody):
    """A coupon and its campaign, as just created or changed. `warnings` tells what is accepted, but probably not meant,
    such as rules that refuse everybody."""

    warnings: list[WarningBody]


@dataclass(frozen=True, slots=True)
class CampaignDetailBody(CampaignBody):
    """A coupon, its campaign and its first claimants, oldest first, as a consistent snapshot. If `claimed_count` is
    larger than the length of `claimed_by`, read `claims`."""

    claimed_by: Annotated[list[UserId], Field(max_length=MAX_CLAIMANTS)]
    claimed_count: Annotated[int, Field(ge=0, description="how many units are claimed or held", examples=[58])]
    claims: Annotated[str, Field(description="the path of all claims, in pages", examples=["/api/coupons/demo/claims"])]


def listed_coupon_body(listed: domain.ListedCoupon) -> ListedCouponBody:
    """The body of a coupon in a list."""
    coupon = listed.coupon
    return ListedCouponBody(
        coupon.name,
        coupon.amount,
        coupon.remaining_amount,
        coupon.strategy,
        coupon.created_at,
        listed.state,
        listed.type,
        benefit_body(listed.benefit),
        listed.starts_at,
        listed.ends_at,
    )


def campaign_body(coupon: domain.Coupon, campaign: domain.Campaign) -> CampaignBody:
    """The body of a coupon and its campaign."""
    return CampaignBody(**_values(coupon, campaign))


def written_campaign_body(
    coupon: domain.Coupon, campaign: domain.Campaign, warnings: Sequence[domain.CouponWarning]
) -> WrittenCampaignBody:
    """The body of a coupon that was just created or changed."""
    told = [WarningBody(warning.detail, warning.pointer) for warning in warnings]
    return WrittenCampaignBody(**_values(coupon, campaign), warnings=told)


def coupon_path(name: str) -> str:
    """The path of a coupon: a blank in its name is `%20`."""
    return f"/api/coupons/{quote(name)}"


def campaign_detail_body(detail: domain.CouponDetail) -> CampaignDetailBody:
    """The body of a coupon, its campaign and its claimants."""
    return CampaignDetailBody(
        **_values(detail.coupon, detail.campaign),
        claimed_by=list(detail.claimed_by),
        claimed_count=detail.coupon.claimed_count,
        claims=f"{coupon_path(detail.coupon.name)}/claims",
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
        "claims_per_user": campaign.most_claims,
        "type": campaign.type,
        "benefit": benefit_body(campaign.benefit),
        "metadata": dict(campaign.metadata),
        "uses": campaign.uses,
        "rules": rules_body(campaign.rules),
        "queue": queue_body(campaign.queue),
        "waiting_list": waiting_list_body(campaign.waiting_list_seconds),
        "has_allow_list": campaign.has_allow_list,
        "has_deny_list": campaign.has_deny_list,
    }
