"""What was answered in a part of a run: how quickly, and what."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.trial import Trial
from tests.support.history import CLAIM, Invocation

# The issue's own limits.
MINORITY_P99_FACTOR = 3.0
UNAVAILABLE_WITHIN_SECONDS = 2.0
RECOVERED_WITHIN_SECONDS = 5.0

# The sum of the limits that a claim may meet one after the other, with the default settings: waiting for its turn, for
# a connection, for the unit of work, and for the look at a commit in doubt.
CLAIM_WITHIN_SECONDS = 12.0

# What a shared machine may add to a limit: its two cores run the load, the servers and whatever else.
SLACK_SECONDS = 0.5
P99_SLACK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Window:
    """The claims that were begun between two moments (monotonic ns)."""

    claims: Sequence[Invocation]

    def of(self, *coupons: str) -> "Window":
        """Those of some coupons alone."""
        return Window([each for each in self.claims if each.coupon in coupons])

    def p99_seconds(self) -> float:
        """Of those that were answered, whatever the answer; 0 if none was."""
        took = sorted(_seconds(each) for each in self.claims if each.end)
        return took[int(len(took) * 0.99)] if took else 0.0

    def slowest_seconds(self) -> float:
        return max((_seconds(each) for each in self.claims if each.end), default=0.0)

    def count(self, *statuses: int) -> int:
        """How many were answered with one of these; 0 is no answer."""
        return sum(each.status in statuses for each in self.claims)

    def problems(self) -> str:
        """How many of which answer, in words."""
        told: dict[str, int] = {}
        for each in self.claims:
            what = f"{each.status or ''} {each.problem}".strip()
            told[what] = told.get(what, 0) + 1
        return ", ".join(f"{count} x {what}" for what, count in sorted(told.items()))


def now() -> int:
    """A moment of the history's clock."""
    return time.monotonic_ns()


def window(trial: Trial, begin: int, end: int | None = None) -> Window:
    """The claims that were begun from one moment to another, or to now."""
    last = now() if end is None else end
    return Window(
        [each for each in trial.history.invocations if each.operation == CLAIM and begin <= each.start < last]
    )


def expect_answers_within(trial: Trial, seen: Window, seconds: float, what: str) -> None:
    """Every claim was answered, and in time."""
    limit = seconds + SLACK_SECONDS
    slowest = seen.slowest_seconds()
    trial.expect(slowest <= limit, f"{what}: an answer took {slowest:.2f} s, more than {limit:.1f} s")
    missing = seen.count(0)
    trial.expect(not missing, f"{what}: {missing} claims had no answer ({seen.problems()})")


def seconds_until_claimed(trial: Trial, since: int, coupon: str) -> float | None:
    """How long after a moment the first claim of a coupon was acknowledged that was begun after it."""
    ends = [each.end for each in window(trial, since).of(coupon).claims if each.is_acknowledged]
    return (min(ends) - since) / 1e9 if ends else None


def expect_recovery(trial: Trial, healed: int, coupon: str, seconds: float = RECOVERED_WITHIN_SECONDS) -> None:
    """Claims of that coupon succeed again within this time of healing; how soon is noted."""
    took = seconds_until_claimed(trial, healed, coupon)
    text = "never" if took is None else f"after {took:.2f} s"
    trial.expect(took is not None and took <= seconds + SLACK_SECONDS, f"claims of {coupon} succeeded again {text}")
    trial.notes.append(f"claimed again {text}")


def _seconds(each: Invocation) -> float:
    return (each.end - each.start) / 1e9
