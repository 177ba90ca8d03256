"""Coupons, claims, and the outcomes of requests: values to be distinguished with `match`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from claimsvc.client.errors import Problem

if TYPE_CHECKING:
    from claimsvc.client.tickets import Ticket


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
        queue: the queue in which its claims wait; None if they are decided at once.
        waiting_list: how claims wait for units that come back once it is sold out; None if they do not.
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
    queue: Mapping[str, Any] | None = field(default=None, hash=False)
    waiting_list: Mapping[str, Any] | None = field(default=None, hash=False)
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def claimed_count(self) -> int:
        """How many units are claimed or held. If `claimed_by` is shorter, `ClaimClient.claims` reads all claims."""
        return self.amount - self.remaining_amount


@dataclass(frozen=True, slots=True)
class SeenTicket:
    """A claim that waits in the queue of a coupon, as it was seen at one moment.

    Args:
        state: `waiting`, `started`, or one of its ends: `claimed`, `refused`, `expired`, `left`, `dead`.
        position: its place in the queue, from 1; 0 once its claim has begun; None once it has ended.
        ahead: how many wait before it.
        eta_seconds: in how many seconds its claim begins, at the pace of late; None if that cannot be said.
        stopped: why no ticket of its queue is started now; None if they are.
        more: members of the answer that this client does not know.
    """

    id: str
    coupon_name: str
    user_id: str
    state: str
    joined_at: datetime
    position: int | None = None
    ahead: int | None = None
    eta_seconds: float | None = None
    stopped: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


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
class Queued(Outcome):
    """The claim waits in the coupon's queue, by this request or an earlier one of the user: `await ticket.wait()`."""

    ticket: "Ticket"


@dataclass(frozen=True, slots=True)
class QueueFull(Refusal):
    """No more may wait for the coupon; a place is likely to be free in `retry_after_seconds`.

    The client does not retry: send a new request then.
    """

    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class Expired(Outcome):
    """The ticket has waited for as long as its queue allows. Its claim was not begun."""


@dataclass(frozen=True, slots=True)
class Left(Outcome):
    """The ticket has left its queue, by `Ticket.leave` or by an operator."""


@dataclass(frozen=True, slots=True)
class Dead(Outcome):
    """The service has failed too often to decide the claim. An operator may have it tried again."""


@dataclass(frozen=True, slots=True)
class UnknownTicket(Refusal):
    """No ticket has this id, or it ended more than a day ago."""


@dataclass(frozen=True, slots=True)
class TicketStarted(Refusal):
    """The ticket cannot leave: its claim has begun or ended."""

    ticket: SeenTicket


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


ClaimRefusal = (
    QueueFull
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
ClaimOutcome = Claimed | HoldContinued | Queued | ClaimRefusal
TicketEnd = Claimed | ClaimRefusal | Expired | Left | Dead | UnknownTicket
LeaveOutcome = Left | TicketStarted | UnknownTicket | Refused
ConfirmOutcome = Confirmed | HoldExpired | ClaimCancelled | UnknownClaim | KeyReused | Refused
CancelOutcome = Cancelled | HoldExpired | UnknownClaim | Refused
CreateOutcome = CouponCreated | CouponExists | KeyReused | Refused
