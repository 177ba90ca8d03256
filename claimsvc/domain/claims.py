"""Coupons, claims, and every answer that a claim can have: values, known to every room."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from claimsvc.domain.eligibility import Attributes, Reason


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


@dataclass(frozen=True, slots=True)
class Coupon:
    """A limited stock: `amount` units were offered, `remaining_amount` of them are still to be had."""

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


# What a claim can come to. Each of these is decided by PostgreSQL; whatever could not be decided is an error.


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim is committed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class AlreadyClaimed:
    """The user holds this claim of the coupon already."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class SoldOut:
    """No unit was left, and the user holds none."""


@dataclass(frozen=True, slots=True)
class UnknownCoupon:
    """There is no coupon of that name."""


@dataclass(frozen=True, slots=True)
class HoldContinued:
    """The user held this unit already. Asked for a hold, it goes on as it was; asked for a claim, it is confirmed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The coupon cannot be claimed before `starts_at`, which is `seconds` away by the database's clock."""

    starts_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The coupon can be claimed no more."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The coupon cannot be claimed for now."""


@dataclass(frozen=True, slots=True)
class NotEligible:
    """The coupon is not for this user; nothing of it was taken."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """This was asked before under the same key: its answer then, and the id of the request that it answered."""

    answer: Any
    request_id: str


@dataclass(frozen=True, slots=True)
class KeyReused:
    """Something else was asked before under the same key; nothing was done."""


Outcome = (
    Claimed
    | AlreadyClaimed
    | SoldOut
    | UnknownCoupon
    | HoldContinued
    | NotStarted
    | Ended
    | Paused
    | NotEligible
    | Replayed
    | KeyReused
)

OUTCOME_NAMES: Mapping[type[Outcome], str] = MappingProxyType(
    {
        Claimed: "claimed",
        AlreadyClaimed: "already-claimed",
        HoldContinued: "hold-continued",
        SoldOut: "sold-out",
        UnknownCoupon: "unknown-coupon",
        NotStarted: "not-started",
        Ended: "ended",
        Paused: "paused",
        NotEligible: "not-eligible",
        Replayed: "replayed",
        KeyReused: "key-reused",
    }
)
"""What outcomes are called wherever they are shown, counted or kept. Some are kept: no name may ever mean another."""


# What becomes of a claim later.


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The claim is its user's for good: from now on, or since before."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The claim is given back: now, or it was before."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class HoldExpired:
    """The unit was held for its time, and is another's by now, or may be."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class AlreadyCancelled:
    """The claim was given back before, so nothing else can become of it."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class NotYourClaim:
    """The claim belongs to a different user, and the caller may not act for them."""


@dataclass(frozen=True, slots=True)
class UnknownClaim:
    """There is no claim of that id."""


# A place in a listing: the sort key of the last row seen, so that pages stay right while rows are added.


@dataclass(frozen=True, slots=True)
class ClaimPosition:
    """A claim's place among the claims of its coupon, oldest first."""

    claimed_at: datetime
    id: str
