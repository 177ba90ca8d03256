"""Coupons: their stock, and their terms, such as period, limit per user, benefit and who may claim them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from claimsvc.domain.eligibility import EligibilityRules
from claimsvc.domain.limits import FURTHER_CLAIMS
from claimsvc.domain.outcomes import Outcome, Refusal, outcome, refusal
from claimsvc.domain.problems import RpcCode
from claimsvc.domain.tickets import Queue


class StrategyName(StrEnum):
    """The ways to admit a claim; each coupon has one, chosen when it is created."""

    REDLOCK = "redlock"
    ROW_LOCK = "row_lock"
    COUNTER = "counter"


class CouponState(StrEnum):
    """Whether a coupon can be claimed, and if not, why: the first state that applies, as claims are refused."""

    ARCHIVED = "archived"
    ENDED = "ended"
    PAUSED = "paused"
    UPCOMING = "upcoming"
    SOLD_OUT = "sold-out"
    OPEN = "open"


EVERY_STATE_BUT_ARCHIVED = frozenset(CouponState) - {CouponState.ARCHIVED}


@outcome("coupon-created")
@dataclass(frozen=True, slots=True)
class Coupon(Outcome):
    """A limited stock: `amount` units in total, of which `remaining_amount` can still be claimed.

    `has_queue` says whether claims of it wait in a queue, where that was read.
    """

    name: str
    amount: int
    remaining_amount: int
    strategy: StrategyName
    created_at: datetime
    has_queue: bool = False

    @property
    def claimed_count(self) -> int:
        """The units that are claimed or held."""
        return self.amount - self.remaining_amount


@dataclass(frozen=True, slots=True)
class Campaign:
    """The terms of a coupon; the defaults are those of a coupon without any.

    Args:
        starts_at: the first moment at which it can be claimed, by the database's clock.
        ends_at: the first moment at which it can no longer be claimed.
        paused: whether claiming is suspended.
        archived_at: when it was closed permanently and removed from listings.
        per_user_limit: how many units a user may hold at a time.
        claims_per_user: how many claims a user may make in all, ended ones included; None for the default, see
            `most_claims`.
        queue: the queue in which its claims wait; None if they are decided at once.
        waiting_list_seconds: for how long a unit that comes back is held for who waits for it; None if nobody may wait
            once the coupon is sold out.
        type: the group of coupons it belongs to.
        benefit: what it is worth, in the form of the API's `Benefit`.
        metadata: arbitrary data of its owner.
        uses: how often each claim may be redeemed, unless its code says otherwise.
        rules: its eligibility rules.
        has_allow_list: whether only users on its allow list may claim it.
        has_deny_list: whether users on its deny list may not claim it.
    """

    starts_at: datetime | None = None
    ends_at: datetime | None = None
    paused: bool = False
    archived_at: datetime | None = None
    per_user_limit: int = 1
    type: str | None = None
    benefit: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    uses: int = 1
    rules: EligibilityRules | None = None
    has_allow_list: bool = False
    has_deny_list: bool = False
    claims_per_user: int | None = None
    queue: Queue | None = None
    waiting_list_seconds: int | None = None

    @property
    def most_claims(self) -> int:
        """How many claims a user may make in all, ended ones included."""
        return self.per_user_limit + FURTHER_CLAIMS if self.claims_per_user is None else self.claims_per_user

    def is_empty(self) -> bool:
        """Whether it ends before it starts."""
        return self.starts_at is not None and self.ends_at is not None and self.starts_at >= self.ends_at


PLAIN = Campaign()
"""No terms: only the stock decides."""


@dataclass(frozen=True, slots=True)
class CouponFilter:
    """Which coupons are listed.

    Args:
        search: only names that contain this text, case-insensitively; empty for all.
        type: only coupons of this type, or without a type if empty; None for all.
        states: only coupons in one of these states.
    """

    search: str = ""
    type: str | None = None
    states: frozenset[CouponState] = EVERY_STATE_BUT_ARCHIVED


@dataclass(frozen=True, slots=True)
class ListedCoupon:
    """A coupon in a list, with the terms by which a list is searched. `benefit` has the form of the API's `Benefit`."""

    coupon: Coupon
    state: CouponState
    type: str | None = None
    benefit: Mapping[str, Any] | None = field(default=None, hash=False)
    starts_at: datetime | None = None
    ends_at: datetime | None = None


@outcome("coupon-changed")
@dataclass(frozen=True, slots=True)
class CouponDetail(Outcome):
    """A coupon, its terms, and its first claimants, oldest first, read in one snapshot."""

    coupon: Coupon
    claimed_by: tuple[str, ...]
    campaign: Campaign = PLAIN


@refusal(
    "coupon-exists",
    409,
    "The coupon exists already",
    "There is a coupon of that name already; it was not changed.",
    "Choose another name.",
    rpc_code=RpcCode.ALREADY_EXISTS,
)
@dataclass(frozen=True, slots=True)
class CouponExists(Refusal):
    """A coupon of that name exists already; nothing was changed."""


@refusal(
    "amount-below-claimed",
    409,
    "More is claimed than that",
    "More units are claimed or held than the new amount; nothing was changed. `claimed` is their number.",
    "Choose an amount that is no less, or cancel claims first.",
)
@dataclass(frozen=True, slots=True)
class AmountBelowClaimed(Refusal):
    """The new amount is less than the units that are claimed or held; nothing was changed."""

    claimed: int


@refusal(
    "empty-period",
    409,
    "It would end before it starts",
    "`ends_at` must be after `starts_at`; nothing was changed.",
    "Choose a later end, or an earlier start.",
)
@dataclass(frozen=True, slots=True)
class PeriodIsEmpty(Refusal):
    """The coupon would end before it starts; nothing was changed."""
