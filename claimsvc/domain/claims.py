"""Coupons, claims, and attempts to claim; `claim_outcomes` has the results of an attempt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from claimsvc.domain.eligibility import Attributes


class ClaimState(StrEnum):
    """The state of a claim."""

    ACTIVE = "active"
    # Takes a unit until it is confirmed, cancelled, or expires.
    HELD = "held"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class CodeTerms:
    """The type and the benefit of a code that has one of them of its own; the other is that of its coupon."""

    type: str | None
    benefit: Mapping[str, Any] | None = field(hash=False)


# Not frozen, as those below it: it is made for each claim, and a frozen one costs three times as much.
@dataclass(slots=True, unsafe_hash=True)
class Claim:
    """One unit of a coupon, claimed by one user. Never changed.

    Args:
        id: a UUID in its usual text form.
        claimed_at: by the database's clock, like all times here.
        expires_at: when the hold expires; None unless the claim is held.
        ended_at: when it was cancelled or expired; None while it is active or held.
        code: the claim's code, if the coupon has codes. None while the claim is held.
        terms: what the code is worth; None while the claim is held, and if the code has no terms of its own.
    """

    id: str
    coupon_name: str
    user_id: str
    state: ClaimState
    claimed_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    code: str | None = None
    terms: CodeTerms | None = None


EVERY_CLAIM_STATE = frozenset(ClaimState)


@dataclass(frozen=True, slots=True)
class UserClaim:
    """A claim as its user sees it in a list of all claims.

    Args:
        claim: the claim.
        type: the type of its coupon; None if that has none.
        benefit: what its coupon is worth, in the form of the API's `Benefit`; None if that is not stated.
        shows_code: whether the reader may see the claim's code. If not, `claim.code` and `claim.terms` are None.
    """

    claim: Claim
    type: str | None
    benefit: Mapping[str, Any] | None = field(hash=False)
    shows_code: bool = True


@dataclass(slots=True, unsafe_hash=True)
class IdempotencyKey:
    """An idempotency key: requests of one caller with the same key get the same answer. Never changed.

    Args:
        caller: the name of the caller.
        key: chosen by the caller.
        fingerprint: a digest of the request; a different request under the same key is refused.
        request_id: the id of this request.
        former_fingerprint: the digest by which the version before stored the same request, or what makes it, because
            few keys need it; None if there is none.
        keeps_all: false if an answer that uses nothing up is not stored, because its caller has had enough of them
            stored.
    """

    caller: str
    key: str
    fingerprint: bytes
    request_id: str
    former_fingerprint: bytes | Callable[[], bytes] | None = field(default=None, compare=False)
    keeps_all: bool = True

    def former(self) -> bytes | None:
        """The former fingerprint, made if need be."""
        former = self.former_fingerprint
        return former() if callable(former) else former

    def is_of(self, fingerprint: bytes) -> bool:
        """Whether a stored fingerprint, of this version or the one before, is that of this request."""
        return fingerprint == self.fingerprint or fingerprint == self.former()


@dataclass(frozen=True, slots=True)
class TicketLease:
    """The right to make the claim of a ticket.

    Args:
        ticket_id: the ticket.
        place: the place that it was given when it joined.
        token: changes with each lease; the claim's transaction checks it.
    """

    ticket_id: str
    place: int
    token: str


@dataclass(slots=True, unsafe_hash=True)
class ClaimOptions:
    """The options of a claim. Never changed.

    Args:
        hold_seconds: hold the unit for this long unless it is confirmed; None to claim it directly.
        idempotency_key: makes repetitions of the request get the first answer.
        is_final: whether a refusal is the answer; false if another coupon is tried after it.
        attributes: what the request states about the user.
        token: what the user's verified token states.
        ticket: the ticket whose claim this is; its end is written in the claim's transaction. None without one.
        prefers_ticket: whether the claim is to wait in a queue, also where the coupon has none of its own.
    """

    hold_seconds: int | None = None
    idempotency_key: IdempotencyKey | None = None
    attributes: Attributes = field(default_factory=dict, hash=False)
    token: Attributes = field(default_factory=dict, hash=False)
    is_final: bool = True
    ticket: TicketLease | None = None
    prefers_ticket: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether these options matter only for a coupon with eligibility rules."""
        return self.hold_seconds is None and self.idempotency_key is None and self.ticket is None


@dataclass(slots=True, unsafe_hash=True)
class Attempt:
    """A claim to be decided. Never changed.

    Args:
        claim_id: a UUID in its usual text form. The caller creates it, so that after a commit in doubt the claim can
            be recognized.
        options: None for a plain claim of one unit.
    """

    claim_id: str
    coupon_name: str
    user_id: str
    options: ClaimOptions | None = None


# Pages continue after the sort key of the last row seen, so rows added meanwhile do not shift them.


@dataclass(frozen=True, slots=True)
class ClaimPosition:
    """A claim's position in the list of its coupon's claims, oldest first, or of its user's claims, newest first."""

    claimed_at: datetime
    id: str
