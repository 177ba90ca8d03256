"""What a coupon may have beyond its stock: when it can be claimed, how often, and what it is worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from claimsvc.domain.claims import Coupon
from claimsvc.domain.eligibility import Rules
from claimsvc.domain.outcomes import Outcome, Refusal, outcome, refusal
from claimsvc.domain.problems import RpcCode


@dataclass(frozen=True, slots=True)
class Campaign:
    """The rules of a coupon; one without any has these.

    Args:
        starts_at, ends_at: it can be claimed from the one until just before the other; the database's clock decides.
        paused: nobody can claim it for now.
        archived_at: since when it is closed for good, and out of the listings.
        per_user_limit: how many units one user may have at a time.
        benefit: what it is worth, as the contract's `Benefit`.
        metadata: whatever its owner wants to find on it.
        rules: who may claim it.
        has_allow_list: only those on its allow list may claim it.
        has_deny_list: those on its deny list may not.
    """

    starts_at: datetime | None = None
    ends_at: datetime | None = None
    paused: bool = False
    archived_at: datetime | None = None
    per_user_limit: int = 1
    type: str | None = None
    benefit: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules | None = None
    has_allow_list: bool = False
    has_deny_list: bool = False

    def is_empty(self) -> bool:
        """Whether it would end before it starts."""
        return self.starts_at is not None and self.ends_at is not None and self.starts_at >= self.ends_at


PLAIN = Campaign()
"""No rules: nothing but the stock decides."""


@outcome("coupon-changed")
@dataclass(frozen=True, slots=True)
class CouponDetail(Outcome):
    """A coupon, its rules, and its first claimants, oldest first, all read in one snapshot."""

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
    "More units are claimed or held than the new amount; nothing was changed. `claimed` says how many.",
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
