"""Coupons, claims, and everything that asking for them can come to: values, to be told apart with `match`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from claimsvc.client.errors import Problem


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit of a coupon, of one user.

    Args:
        state: `active`, `held`, `cancelled` or `expired`; a newer service may know more.
        expires_at: when a held claim gives its unit back by itself.
        ended_at: when it was cancelled, or has expired.
        code: the code that it has, if its coupon has codes and it is confirmed.
        more: whatever else the service tells of it.
    """

    id: str
    coupon_name: str
    user_id: str
    state: str
    claimed_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    code: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Coupon:
    """A limited stock: `amount` units were offered, `remaining_amount` of them are left.

    Args:
        claimed_by: its first claimants, oldest first; empty where the service does not tell them.
        starts_at, ends_at: it can be claimed from the one until just before the other.
        paused: nobody can claim it for now.
        per_user_limit: how many units one user may have at a time.
        benefit: what it is worth.
        more: whatever else the service tells of it.
    """

    name: str
    amount: int
    remaining_amount: int
    strategy: str
    created_at: datetime
    claimed_by: tuple[str, ...] = ()
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    paused: bool = False
    archived_at: datetime | None = None
    per_user_limit: int = 1
    type: str | None = None
    benefit: Mapping[str, Any] | None = field(default=None, hash=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What every answer has besides what it says.

    Args:
        request_id: of the request that was answered, as the service's log has it. Of an answer that was given again
            it is the repetition's.
        replayed: the service gave its answer to an earlier attempt again.
    """

    request_id: str = field(default="", compare=False)
    replayed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Outcome):
    """An outcome whose problem has the name of its class: `sold-out` is `SoldOut`."""


@dataclass(frozen=True, slots=True)
class Claimed(Outcome):
    """The unit is the user's: for good, or for a while if `claim.state` is `held`."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class HoldContinued(Outcome):
    """The user held this unit already. Asked for a hold, it goes on as it was; asked for a claim, it is confirmed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class AlreadyClaimed(Refusal):
    """The user has this claim of the coupon already, and may have no more."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class SoldOut(Refusal):
    """No unit was left."""


@dataclass(frozen=True, slots=True)
class UnknownCoupon(Refusal):
    """There is no coupon of that name."""


@dataclass(frozen=True, slots=True)
class NotStarted(Refusal):
    """The coupon cannot be claimed before `starts_at`, `retry_after_seconds` from now (a day at most).

    It is the answer to this request and its key, so it is not waited for: ask anew by then.
    """

    starts_at: datetime
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class Ended(Refusal):
    """The coupon can be claimed no more."""


@dataclass(frozen=True, slots=True)
class Paused(Refusal):
    """The coupon cannot be claimed for now."""


@dataclass(frozen=True, slots=True)
class NotEligible(Refusal):
    """The coupon's rules or lists do not admit the user; each of `reasons` has a `code`."""

    reasons: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class KeyReused(Refusal):
    """Something else was asked before under the same key; nothing was done."""


@dataclass(frozen=True, slots=True)
class Refused(Outcome):
    """The service refused for a reason that has no type of its own here; `problem` is it."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Confirmed(Outcome):
    """The claim is its user's for good."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Cancelled(Outcome):
    """The claim is given back: now, or it was before."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class HoldExpired(Refusal):
    """The unit was held for its time and given back. It may be another's by now."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class ClaimCancelled(Refusal):
    """The claim was cancelled before, so it cannot be confirmed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class UnknownClaim(Refusal):
    """There is no claim of that id."""


@dataclass(frozen=True, slots=True)
class CouponCreated(Outcome):
    """The coupon is on offer."""

    coupon: Coupon


@dataclass(frozen=True, slots=True)
class CouponExists(Refusal):
    """A coupon of that name was there already; it was not changed."""


ClaimOutcome = (
    Claimed
    | HoldContinued
    | AlreadyClaimed
    | SoldOut
    | UnknownCoupon
    | NotStarted
    | Ended
    | Paused
    | NotEligible
    | KeyReused
    | Refused
)
ConfirmOutcome = Confirmed | HoldExpired | ClaimCancelled | UnknownClaim | KeyReused | Refused
CancelOutcome = Cancelled | HoldExpired | UnknownClaim | Refused
CreateOutcome = CouponCreated | CouponExists | KeyReused | Refused
