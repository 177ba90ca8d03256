"""The data of a run: the claims that were sent, their answers, and what was read back.

An outcome is a short text: the status, and for a problem the last part of its `type`, as in `409 sold-out`. The outcome
of a claim without an answer is `no-answer:<kind>`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

CLAIMED = "201"
SOLD_OUT = "409 sold-out"
ALREADY_CLAIMED = "409 already-claimed"
# A 201 without a claim in its body. Something was claimed; only the read-back shows what.
CLAIMED_UNREADABLY = "201 unreadable"
NO_ANSWER = "no-answer:"


def is_unknown(outcome: str) -> bool:
    """Whether it is unknown if the claim was recorded: after timeouts, resets, any 5xx, or an unreadable 201."""
    return outcome.startswith((NO_ANSWER, "5")) or outcome == CLAIMED_UNREADABLY


def may_have_won(outcome: str) -> bool:
    """Whether a claim with this outcome may be in the coupon's list."""
    return outcome == CLAIMED or is_unknown(outcome)


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """A claim as the service returned it."""

    id: str
    coupon_name: str
    user_id: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class CouponPlan:
    """A coupon of one round.

    `expected` is the exact number of every outcome; None if the scenario does not fix them.
    """

    name: str
    amount: int
    expected: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim that was sent, and its outcome.

    `started_seconds` (the release or the scheduled time) and `finished_seconds` (the answer was read) are of the same
    monotonic clock. `claim` is the one in a 201 or an `already-claimed`.
    """

    user_id: str
    coupon_name: str
    started_seconds: float
    finished_seconds: float
    outcome: str
    claim: ClaimSeen | None = None

    @property
    def latency_seconds(self) -> float:
        """From the release until the answer was read."""
        return self.finished_seconds - self.started_seconds


@dataclass(frozen=True, slots=True)
class History:
    """All attempts on one coupon, in the planned order."""

    coupon: CouponPlan
    attempts: tuple[Attempt, ...]

    def counts(self) -> Counter[str]:
        """Count the attempts by outcome."""
        return Counter(attempt.outcome for attempt in self.attempts)

    def with_outcome(self, outcome: str) -> tuple[Attempt, ...]:
        """Return the attempts with this outcome."""
        return tuple(attempt for attempt in self.attempts if attempt.outcome == outcome)


@dataclass(frozen=True, slots=True)
class CouponState:
    """A coupon as it was read back after all claims were answered.

    `claims` is the complete list, all pages. `claims_by_id` contains the results of reading the claims that were
    answered with 201 by id; None for a 404.
    """

    amount: int
    remaining_amount: int
    claimed_by: tuple[str, ...]
    claims: tuple[ClaimSeen, ...]
    claims_by_id: Mapping[str, ClaimSeen | None]
