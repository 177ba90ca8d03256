"""The data of a run: the claims that were sent, their answers, and what was read back.

An outcome is a short text: the status, and for a problem the last part of its `type`, as in `409 sold-out`. The outcome
of a claim without an answer is `no-answer:<kind>`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

CLAIMED = "201"
QUEUED = "202"
QUEUE_FULL = "429 queue-full"
SOLD_OUT = "409 sold-out"
ALREADY_CLAIMED = "409 already-claimed"
# A 201 without a claim in its body. Something was claimed; only the read-back shows what.
CLAIMED_UNREADABLY = "201 unreadable"
# A 202 without a ticket in its body. Somebody waits; only the list of tickets shows who.
QUEUED_UNREADABLY = "202 unreadable"
NO_ANSWER = "no-answer:"


def is_unknown(outcome: str) -> bool:
    """Whether it is unknown if the claim was recorded: after timeouts, resets, any 5xx, an unreadable 201 or 202."""
    return outcome.startswith((NO_ANSWER, "5")) or outcome in (CLAIMED_UNREADABLY, QUEUED_UNREADABLY)


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
class TicketSeen:
    """A ticket as the service returned it: a claim that waits, or has waited, in the queue of a coupon.

    Times are the service's. `claim` is that of a claimed ticket, `problem` the last part of a refused one's `type`.
    """

    id: str
    coupon_name: str
    user_id: str
    state: str
    position: int | None
    joined_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    claim: ClaimSeen | None = None
    problem: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its state is an end."""
        return self.state not in ("waiting", "started")


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """The queue of a coupon, as the contract has it."""

    rate_per_second: int
    concurrency: int
    max_wait_seconds: int
    max_length: int
    order: str = "fifo"


@dataclass(frozen=True, slots=True)
class CouponPlan:
    """A coupon of one round.

    `expected` is the exact number of every outcome; None if the scenario does not fix them. `starts_in_seconds` is from
    its creation until it can be claimed; None if it can be claimed at once.
    """

    name: str
    amount: int
    expected: Mapping[str, int] | None = None
    queue: QueuePlan | None = None
    starts_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim that was sent, and its outcome.

    `started_seconds` (the release or the scheduled time) and `finished_seconds` (the answer was read) are of the same
    monotonic clock. `claim` is the one in a 201 or an `already-claimed`, `ticket` the one in a 202.
    """

    user_id: str
    coupon_name: str
    started_seconds: float
    finished_seconds: float
    outcome: str
    claim: ClaimSeen | None = None
    ticket: TicketSeen | None = None

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
