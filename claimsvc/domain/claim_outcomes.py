"""The outcomes of claiming a coupon, and of confirming and cancelling a claim, each with its row in the table."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from claimsvc.domain.claims import Claim
from claimsvc.domain.eligibility import Reason
from claimsvc.domain.outcomes import ClaimOutcome, Outcome, Refusal, outcome, refusal
from claimsvc.domain.problems import RpcCode

# Metrics for operators group outcomes that differ for the claimant only.
_NOT_OPEN = "not-open"
_ALREADY_CLAIMED = "already-claimed"


@outcome("claimed", uses_up=True)
@dataclass(slots=True, unsafe_hash=True)  # not frozen: see `Claim`
class Claimed(ClaimOutcome):
    """The claim is committed. Never changed."""

    claim: Claim


@refusal(
    "already-claimed",
    409,
    "Already claimed",
    "This user holds a claim of this coupon already; `claim` is it.",
    "Do not retry: the user holds the unit.",
    rpc_code=RpcCode.ALREADY_EXISTS,
    as_reason="The user has as many units as the coupon allows.",
)
@dataclass(frozen=True, slots=True)
class AlreadyClaimed(ClaimOutcome, Refusal):
    """The user holds this claim of the coupon already."""

    claim: Claim


@outcome("hold-continued", seen_as=_ALREADY_CLAIMED)
@dataclass(frozen=True, slots=True)
class HoldContinued(ClaimOutcome):
    """The user held this unit already: a request to hold it changes nothing, a request to claim it confirms it."""

    claim: Claim


@refusal(
    "sold-out",
    409,
    "Sold out",
    "No unit of this coupon is left.",
    "Do not retry: the answer will stay the same.",
    rpc_code=RpcCode.RESOURCE_EXHAUSTED,
    as_reason="No unit of the coupon is left.",
)
@dataclass(frozen=True, slots=True)
class SoldOut(ClaimOutcome, Refusal):
    """No unit was left, and the user holds none."""


@refusal(
    "too-many-claims",
    409,
    "Too many claims",
    "This user has made as many claims of this coupon as one user may, ended ones included.",
    "Do not retry: the answer will stay the same, unless the coupon's `claims_per_user` is raised.",
    rpc_code=RpcCode.RESOURCE_EXHAUSTED,
    seen_as=_ALREADY_CLAIMED,
    as_reason="The user has made as many claims of the coupon as one user may.",
)
@dataclass(frozen=True, slots=True)
class TooManyClaims(ClaimOutcome, Refusal):
    """The user has made as many claims as the coupon allows, cancelled and expired ones included."""


@refusal(
    "unknown-coupon",
    404,
    "Unknown coupon",
    "There is no coupon of that name, or none of that type.",
    "Check the name; it is case-sensitive.",
    # Names can be made up, and so could what is stored.
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class UnknownCoupon(ClaimOutcome, Refusal):
    """There is no coupon with that name."""


@refusal(
    "not-started",
    409,
    "Not started yet",
    "The coupon cannot be claimed before `starts_at`.",
    "Retry after `Retry-After` seconds.",
    is_stored=False,
    seen_as=_NOT_OPEN,
    as_reason="The coupon cannot be claimed yet.",
)
@dataclass(frozen=True, slots=True)
class NotStarted(ClaimOutcome, Refusal):
    """The coupon cannot be claimed before `starts_at`, which is `seconds` away by the database's clock."""

    starts_at: datetime
    seconds: float


@refusal(
    "ended",
    409,
    "Ended",
    "The coupon can no longer be claimed: its period is over, or it was archived.",
    "Do not retry: the answer will stay the same.",
    seen_as=_NOT_OPEN,
    as_reason="The coupon can no longer be claimed.",
)
@dataclass(frozen=True, slots=True)
class Ended(ClaimOutcome, Refusal):
    """The coupon can no longer be claimed."""


@refusal(
    "paused",
    409,
    "Paused",
    "The coupon is paused by its operator; existing claims are not affected.",
    "Retry later.",
    is_stored=False,
    seen_as=_NOT_OPEN,
    as_reason="The coupon cannot be claimed for now.",
)
@dataclass(frozen=True, slots=True)
class Paused(ClaimOutcome, Refusal):
    """The coupon cannot be claimed for now."""


@refusal(
    "not-eligible",
    403,
    "Not for this user",
    "The coupon's rules or lists do not admit this user; `reasons` lists what is not met.",
    "Do not retry until the user's attributes or claims change; then use a new Idempotency-Key.",
    seen_as=_NOT_OPEN,
)
@dataclass(frozen=True, slots=True)
class NotEligible(ClaimOutcome, Refusal):
    """The coupon's rules or lists do not admit this user; nothing was taken."""

    reasons: tuple[Reason, ...]


@outcome("replayed", is_stored=False, seen_as=_ALREADY_CLAIMED)
@dataclass(frozen=True, slots=True)
class Replayed(ClaimOutcome):
    """An earlier request had the same idempotency key: its answer, and its request id."""

    answer: Any
    request_id: str


@refusal(
    "key-reused",
    422,
    "The Idempotency-Key was used for something else",
    "Another request was sent under the same Idempotency-Key before; nothing was done.",
    "Use a new key for each request, and the same key only to retry it.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class KeyReused(ClaimOutcome, Refusal):
    """A different request was sent under the same key before; nothing was done."""


@outcome("confirmed")
@dataclass(frozen=True, slots=True)
class Confirmed(Outcome):
    """The claim is confirmed: by this request, or by an earlier one."""

    claim: Claim


@outcome("cancelled")
@dataclass(frozen=True, slots=True)
class Cancelled(Outcome):
    """The claim is cancelled and its unit returned: by this request, or by an earlier one."""

    claim: Claim


@refusal(
    "hold-expired",
    410,
    "The hold has expired",
    "The hold was not confirmed in time, so its unit was returned to stock; or its code expired before that, and no "
    "other code is left.",
    "Claim again.",
)
@dataclass(frozen=True, slots=True)
class HoldExpired(Refusal):
    """The hold was not confirmed in time; its unit was returned to stock, unless its code expired and left it."""

    claim: Claim


@refusal(
    "claim-cancelled",
    409,
    "The claim was cancelled",
    "The claim was cancelled, so it cannot be confirmed.",
    "Claim again.",
    stored_as="already-cancelled",
)
@dataclass(frozen=True, slots=True)
class AlreadyCancelled(Refusal):
    """The claim was cancelled before, so it can no longer change."""

    claim: Claim


@refusal(
    "not-your-claim",
    403,
    "Not your claim",
    "The claim, or the `user_id` in the request, belongs to a different user.",
    "Leave `user_id` out, or send that user's token.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class NotYourClaim(Refusal):
    """The claim belongs to a different user, and the caller may not act for them."""


@refusal(
    "unknown-claim",
    404,
    "Unknown claim",
    "There is no claim of that id.",
    "Use the `id` from the 201 response.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class UnknownClaim(Refusal):
    """There is no claim with that id."""
