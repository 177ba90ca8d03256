"""Whether this instance can use its dependencies, and since when not: the same report as that of `/readyz`."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

CHECK_SECONDS = 1.0
# One check that fails may be a connection that was lost.
_FAILURES = 2
_LONGEST_WHY = 200


class Check(Protocol):
    """The state of one dependency; see `claimsvc.application.readiness`."""

    @property
    def is_ok(self) -> bool: ...
    @property
    def why(self) -> str: ...


Report = Callable[[], Awaitable[Mapping[str, Check]]]
"""Tells the state of each dependency, by its name."""


@dataclass(frozen=True, slots=True)
class DependencyState:
    """A dependency, as one instance finds it.

    Args:
        is_up: whether it can be used.
        since: since when, at least (seconds since 1970, by the instance's clock).
        checked_at: when the last check ended, likewise.
        why: why it cannot be used; empty if it is up.
    """

    is_up: bool
    since: float
    checked_at: float
    why: str = ""


class HealthWatch:
    """Watches the dependencies of this instance.

    Args:
        report: see `Report`.
        names: the dependencies that are watched. What else is reported, such as that this instance stops, is none.
        clock: seconds since 1970.
    """

    def __init__(self, report: Report, names: Iterable[str], clock: Callable[[], float] = time.time) -> None:
        self._report = report
        self._names = tuple(names)
        self._clock = clock
        self._failing: dict[str, tuple[int, float]] = {}
        self.states: dict[str, DependencyState] = {}

    async def check(self) -> None:
        """Ask for a report."""
        started = round(self._clock(), 1)
        report = await self._report()
        now = round(self._clock(), 1)
        for name in self._names:
            if (check := report.get(name)) is not None:
                self._note(name, check, started, now)

    def _note(self, name: str, check: Check, started: float, now: float) -> None:
        known = self.states.get(name)
        if check.is_ok:
            self._failing.pop(name, None)
            is_same = known is not None and known.is_up
            self.states[name] = DependencyState(True, known.since if is_same and known else started, now)
            return
        times, since = self._failing.get(name, (0, started))
        self._failing[name] = times + 1, since
        if times + 1 >= _FAILURES:
            self.states[name] = DependencyState(False, since, now, check.why[:_LONGEST_WHY])
        elif known is not None:
            self.states[name] = replace(known, checked_at=now)
