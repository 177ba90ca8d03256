"""What was asked, what was answered, and what was read back afterwards: values without behaviour.

An outcome is a short text: the status, and for a problem the last step of its `type`, as in `409 sold-out`.
A claim that never got an answer is `no-answer:<kind>`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

CLAIMED = "201"
SOLD_OUT = "409 sold-out"
ALREADY_CLAIMED = "409 already-claimed"
# Success without the claim that must come with it. Something was claimed; what, only the read-back can tell.
CLAIMED_UNREADABLY = "201 unreadable"
NO_ANSWER = "no-answer:"


def is_unknown(outcome: str) -> bool:
    """Whether the claim may have been recorded or not: time-outs, resets, any 5xx, an unreadable 201."""
    return outcome.startswith((NO_ANSWER, "5")) or outcome == CLAIMED_UNREADABLY


def may_have_won(outcome: str) -> bool:
    """Whether a claim with this outcome can be in the coupon's list."""
    return outcome == CLAIMED or is_unknown(outcome)


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """A claim as the service showed it."""

    id: str
    coupon_name: str
    user_id: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class CouponPlan:
    """A coupon made for one round.

    `expected` holds the exact number of every outcome, or None where only the set check applies.
    """

    name: str
    amount: int
    expected: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim that was sent and what came of it.

    `started_seconds` (the release or the scheduled moment) and `finished_seconds` (the answer was read) are
    on one monotonic clock. `claim` is the one that came with a 201, or with `already-claimed`.
    """

    user_id: str
    coupon_name: str
    started_seconds: float
    finished_seconds: float
    outcome: str
    claim: ClaimSeen | None = None

    @property
    def latency_seconds(self) -> float:
        """From the release to the answer read."""
        return self.finished_seconds - self.started_seconds


@dataclass(frozen=True, slots=True)
class History:
    """Every attempt at one coupon, in the order in which they were planned."""

    coupon: CouponPlan
    attempts: tuple[Attempt, ...]

    def counts(self) -> Counter[str]:
        """How often each outcome was seen."""
        return Counter(attempt.outcome for attempt in self.attempts)

    def with_outcome(self, outcome: str) -> tuple[Attempt, ...]:
        """The attempts that ended so."""
        return tuple(attempt for attempt in self.attempts if attempt.outcome == outcome)


@dataclass(frozen=True, slots=True)
class CouponState:
    """A coupon as it was read back once all claims were answered.

    `claims` is the whole list, every page of it. `claims_by_id` holds, for claims that were answered 201,
    what a read by id showed, or None for a 404.
    """

    amount: int
    remaining_amount: int
    claimed_by: tuple[str, ...]
    claims: tuple[ClaimSeen, ...]
    claims_by_id: Mapping[str, ClaimSeen | None]
