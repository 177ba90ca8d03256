"""Whether this instance can use its dependencies, and since when not: the same checks as those of `/readyz`."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from claimsvc.errors import UnavailableError
from claimsvc.ports import HealthCheck

CHECK_SECONDS = 1.0
# While nobody watches, so that a viewer who comes later is told since when a dependency is down.
IDLE_CHECK_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
# One check that fails may be a connection that was lost.
_FAILURES = 2
_LONGEST_WHY = 200


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
    """Checks the dependencies of this instance.

    Args:
        checks: the check of each dependency, by its name.
        clock: seconds since 1970.
    """

    def __init__(self, checks: Mapping[str, HealthCheck], clock: Callable[[], float] = time.time) -> None:
        self._checks = checks
        self._clock = clock
        self._failing: dict[str, tuple[int, float]] = {}
        self.states: dict[str, DependencyState] = {}

    @property
    def is_failing(self) -> bool:
        """Whether the last check of any dependency failed."""
        return bool(self._failing)

    async def check(self) -> None:
        """Check each dependency once. Takes two seconds at most."""
        await asyncio.gather(*(self._check(name) for name in self._checks))

    async def _check(self, name: str) -> None:
        started = self._clock()
        why = await self._why_unusable(name)
        now = round(self._clock(), 1)
        known = self.states.get(name)
        if why is None:
            self._failing.pop(name, None)
            is_same = known is not None and known.is_up
            self.states[name] = DependencyState(True, known.since if is_same and known else round(started, 1), now)
            return
        times, since = self._failing.get(name, (0, round(started, 1)))
        self._failing[name] = times + 1, since
        if times + 1 >= _FAILURES:
            self.states[name] = DependencyState(False, since, now, why)
        elif known is not None:
            self.states[name] = replace(known, checked_at=now)

    async def _why_unusable(self, name: str) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._checks[name]()
        except UnavailableError as error:
            why = error.trouble.found if error.trouble is not None else error.detail
            return why[:_LONGEST_WHY]
        except TimeoutError:
            return f"no answer within {_TIMEOUT_SECONDS:g} s"
        except Exception:  # noqa: BLE001 - a check that fails in an unknown way counts as down
            structlog.get_logger("claimsvc.live").exception("health_check_failed", dependency=name)
            return "its check failed unexpectedly; see the log"
        return None
