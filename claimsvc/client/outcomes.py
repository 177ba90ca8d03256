"""Coupons, claims, and the outcomes of requests: values to be distinguished with `match`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from claimsvc.client.errors import Problem


@dataclass(frozen=True, slots=True)
class Claim:
    """One user's claim of one unit of a coupon.

    Args:
        state: `active`, `held`, `cancelled` or `expired`; a newer service may have more.
        expires_at: when a held claim expires.
        ended_at: when it was cancelled or expired.
        code: the code assigned to it, if its coupon has codes and it is confirmed.
        more: members of the answer that this client does not know.
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
    """A limited stock of `amount` units, of which `remaining_amount` are left.

    Args:
        claimed_by: its first claimants, oldest first; empty if the service does not return them.
        starts_at, ends_at: it can be claimed from `starts_at` until just before `ends_at`.
        paused: whether claims are refused for now.
        per_user_limit: most units that one user may have at a time.
        claims_per_user: most claims that one user may make in all, ended ones included; None if an older service does
            not say it.
        benefit: what the coupon is worth.
        more: members of the answer that this client does not know.
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
    claims_per_user: int | None = None
    type: str | None = None
    benefit: Mapping[str, Any] | None = field(default=None, hash=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def claimed_count(self) -> int:
        """How many units are claimed or held. If `claimed_by` is shorter, `ClaimClient.claims` reads all claims."""
        return self.amount - self.remaining_amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Base class of all outcomes.

    Args:
        request_id: of the answered request, as in the service's log. For a replayed answer it is that of the repeated
            request.
        replayed: whether this is the stored answer to an earlier request with the same key.
    """

    request_id: str = field(default="", compare=False)
    replayed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Outcome):
    """An outcome whose problem has the name of its class: `sold-out` is `SoldOut`."""


@dataclass(frozen=True, slots=True)
class Claimed(Outcome):
    """The user got the unit: permanently, or until the hold expires if `claim.state` is `held`."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class HoldContinued(Outcome):
    """The user already held this unit. A request for a hold leaves it unchanged; a request for a claim confirms it."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class AlreadyClaimed(Refusal):
    """The user already has this claim of the coupon, and has reached the limit."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class SoldOut(Refusal):
    """No units are left."""


@dataclass(frozen=True, slots=True)
class TooManyClaims(Refusal):
    """The user has made as many claims as the coupon allows, cancelled and expired ones included."""


@dataclass(frozen=True, slots=True)
class UnknownCoupon(Refusal):
    """No coupon has this name."""


@dataclass(frozen=True, slots=True)
class NotStarted(Refusal):
    """The coupon cannot be claimed before `starts_at`, in `retry_after_seconds` (at most a day).

    This answer is stored with the key, so the client does not retry: send a new request then.
    """

    starts_at: datetime
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class Ended(Refusal):
    """The coupon's period has ended."""


@dataclass(frozen=True, slots=True)
class Paused(Refusal):
    """The coupon is paused."""


@dataclass(frozen=True, slots=True)
class NotEligible(Refusal):
    """The coupon's rules or lists do not admit the user; each of `reasons` has a `code`."""

    reasons: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class KeyReused(Refusal):
    """The key was used before for a different request; nothing was done."""


@dataclass(frozen=True, slots=True)
class Refused(Outcome):
    """The service refused with a `problem` that has no class here."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Confirmed(Outcome):
    """The claim is confirmed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Cancelled(Outcome):
    """The claim is cancelled, now or by an earlier request."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class HoldExpired(Refusal):
    """The hold has expired and its unit was returned to stock."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class ClaimCancelled(Refusal):
    """The claim was cancelled, so it cannot be confirmed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class UnknownClaim(Refusal):
    """No claim has this id."""


@dataclass(frozen=True, slots=True)
class CouponCreated(Outcome):
    """The coupon was created."""

    coupon: Coupon


@dataclass(frozen=True, slots=True)
class CouponExists(Refusal):
    """A coupon with this name already exists; it was not changed."""


ClaimOutcome = (
    Claimed
    | HoldContinued
    | AlreadyClaimed
    | SoldOut
    | TooManyClaims
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
