"""What a check comes to."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: `wrong` breaks a promise, or soon will; `warning` makes the service slower or less safe."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination: what was looked at, what was found, and how to mend it; empty where all is well."""

    level: Level
    subject: str
    found: str
    mend: str = ""


Findings = Iterator[Finding]

# Clocks as far apart as this are not kept by anything, and logs from two machines are hard to read side by side.
_CLOCK_SECONDS = 1.0
# Every batch pays for several answers, one after the other; within a data centre they take less than a millisecond.
_SLOW_SECONDS = 0.01


def ok(subject: str, found: str) -> Finding:
    return Finding(Level.OK, subject, found)


def warning(subject: str, found: str, mend: str) -> Finding:
    return Finding(Level.WARNING, subject, found, mend)


def wrong(subject: str, found: str, mend: str) -> Finding:
    return Finding(Level.WRONG, subject, found, mend)


def judge_clock(subject: str, ahead_seconds: float) -> Findings:
    """A server's clock against this machine's."""
    if abs(ahead_seconds) > _CLOCK_SECONDS:
        way = "ahead of" if ahead_seconds > 0 else "behind"
        found = f"its clock is {abs(ahead_seconds):.1f} s {way} this machine's"
        yield warning(subject, found, "have both kept by NTP; a clock that is set while it runs ends locks too early")


def judge_answer(subject: str, seconds: float) -> Findings:
    """How long a server usually takes to answer."""
    if seconds > _SLOW_SECONDS:
        found = f"it takes {seconds * 1000:.0f} ms to answer"
        yield warning(subject, found, "move the service and it closer together, or look at what keeps it busy")
