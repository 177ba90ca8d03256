"""The results of checks."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity: `wrong` breaks a promise of the service, or soon will; `warning` makes it slower or less safe."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        level: severity.
        subject: what was checked.
        found: what was found.
        mend: what to do about it; empty for `ok`.
    """

    level: Level
    subject: str
    found: str
    mend: str = ""


Findings = Iterator[Finding]

# Clocks that differ by more are not synchronized, which makes logs from two machines hard to compare.
_CLOCK_SECONDS = 1.0
# A batch waits for several answers in sequence. Within a data centre each takes less than a millisecond.
_SLOW_SECONDS = 0.01


def ok(subject: str, found: str) -> Finding:
    return Finding(Level.OK, subject, found)


def warning(subject: str, found: str, mend: str) -> Finding:
    return Finding(Level.WARNING, subject, found, mend)


def wrong(subject: str, found: str, mend: str) -> Finding:
    return Finding(Level.WRONG, subject, found, mend)


def judge_clock(subject: str, ahead_seconds: float) -> Findings:
    """Judge how far a server's clock is ahead of this machine's (seconds, may be negative)."""
    if abs(ahead_seconds) > _CLOCK_SECONDS:
        way = "ahead of" if ahead_seconds > 0 else "behind"
        found = f"its clock is {abs(ahead_seconds):.1f} s {way} this machine's"
        yield warning(subject, found, "synchronize both with NTP; a clock that jumps makes locks expire too early")


def judge_answer(subject: str, seconds: float) -> Findings:
    """Judge a server's usual response time (seconds)."""
    if seconds > _SLOW_SECONDS:
        found = f"it takes {seconds * 1000:.0f} ms to answer"
        yield warning(subject, found, "move it closer to the service, or find out what keeps it busy")
