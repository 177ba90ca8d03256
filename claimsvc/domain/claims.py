"""Coupons, claims, and what a request to claim asks for; `claim_outcomes` has what it results in."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from claimsvc.domain.eligibility import Attributes
from claimsvc.domain.outcomes import Outcome, outcome


class StrategyName(StrEnum):
    """The ways to admit a claim; each coupon has one, chosen when it is created."""

    REDLOCK = "redlock"
    ROW_LOCK = "row_lock"
    COUNTER = "counter"


class ClaimState(StrEnum):
    """Where a claim is in its life."""

    ACTIVE = "active"
    # Its unit is taken for a while: until it is confirmed, or given back by itself.
    HELD = "held"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@outcome("coupon-created")
@dataclass(frozen=True, slots=True)
class Coupon(Outcome):
    """A limited stock: `amount` units in all, of which `remaining_amount` can still be claimed."""

    name: str
    amount: int
    remaining_amount: int
    strategy: StrategyName
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit of a coupon, held by one user. `id` is a UUID's usual text, every time is the database's.

    `expires_at` is of a claim that is held, `ended_at` of one that was cancelled or has expired. `code` is its own
    where the coupon has codes; nobody is told it while the claim is held, and a listing names none.
    """

    id: str
    coupon_name: str
    user_id: str
    state: ClaimState
    claimed_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What makes a request the same as another: the caller and the key of its choice, and what was asked."""

    caller: str
    key: str
    fingerprint: bytes
    request_id: str


@dataclass(frozen=True, slots=True)
class ClaimOptions:
    """What a claim asks for beyond a unit for a user.

    Args:
        hold_seconds: how long the unit is held until it is confirmed; None to have it for good.
        once: that this is answered once, and its repetitions alike.
        is_final: whether a refusal is the answer too, and not only a reason to try another coupon.
        attributes: what the request says of the user.
        token: what the user's token says, which was verified.
    """

    hold_seconds: int | None = None
    once: IdempotencyKey | None = None
    attributes: Attributes = field(default_factory=dict, hash=False)
    token: Attributes = field(default_factory=dict, hash=False)
    is_final: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether only a coupon's rules could tell it from a claim without."""
        return self.hold_seconds is None and self.once is None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim that asks to be admitted. The caller makes the id (a UUID's usual text), so that a claim whose commit
    was lost sight of can be recognized. `options` is what it asks for beyond a unit."""

    claim_id: str
    coupon_name: str
    user_id: str
    options: ClaimOptions | None = None


# A place in a listing: the sort key of the last row seen, so that pages stay right while rows are added.


@dataclass(frozen=True, slots=True)
class ClaimPosition:
    """A claim's place among the claims of its coupon, oldest first."""

    claimed_at: datetime
    id: str
