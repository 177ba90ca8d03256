"""Readiness: whether this instance may be sent requests, and which dependency it cannot use.

The one rule behind `/readyz` and the metrics. It is checked once a second even if nobody asks, so the metrics are fresh
when no load balancer is there.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from claimsvc import ports
from claimsvc.background import in_background
from claimsvc.errors import UnavailableError

CHECK_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 1.0
STOPPING = "claimsvc"
"""What a stopping instance names as not usable: itself."""


@dataclass(frozen=True, slots=True)
class Check:
    """The state of one dependency.

    Args:
        is_ok: whether it is usable.
        detail: why not, for clients.
        why: why not, for operators.
    """

    is_ok: bool
    detail: str = ""
    why: str = ""


class _Unobserved:
    """Ignores what it is told."""

    def readiness_checked(self, ready: bool, dependencies: Mapping[str, bool]) -> None: ...


class Readiness:
    """Runs the health checks. Concurrent probes share a run, and its result is reused while it is fresh.

    Args:
        checks: the check of each dependency, by its name; it raises `UnavailableError` if the dependency is down.
        observer: told of each result.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        checks: Mapping[str, ports.HealthCheck],
        observer: ports.ReadinessObserver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._observer = observer or _Unobserved()
        self._clock = clock
        self._turn = asyncio.Lock()
        self._fresh_until = -1.0
        self._report: Mapping[str, Check] = {}
        self._stopping = False

    def stop(self) -> None:
        """Report this instance as not ready from now on, because it is stopping."""
        self._stopping = True
        self._observe()

    async def report(self) -> Mapping[str, Check]:
        """The state of each dependency, at most `FRESH_SECONDS` old."""
        if self._stopping:
            return {STOPPING: Check(False, "this instance is stopping")}
        async with self._turn:
            if self._clock() >= self._fresh_until:
                results = await asyncio.gather(*(self._check(name) for name in self._checks))
                self._report = dict(zip(self._checks, results, strict=True))
                self._fresh_until = self._clock() + FRESH_SECONDS
                self._observe()
            return self._report

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Check at once, and then whenever a report would be stale, while the context is active."""
        await self.report()
        async with in_background(self._watch()):
            yield

    async def _watch(self) -> None:
        while not self._stopping:
            await asyncio.sleep(FRESH_SECONDS)
            try:
                await self.report()
            except Exception:  # noqa: BLE001 - what the observer was told last would stay for good
                structlog.get_logger("claimsvc.http").exception("readiness_not_observed")

    def _observe(self) -> None:
        dependencies = {name: check.is_ok for name, check in self._report.items()}
        self._observer.readiness_checked(not self._stopping and all(dependencies.values()), dependencies)

    async def _check(self, name: str) -> Check:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await self._checks[name]()
        except UnavailableError as error:
            return Check(False, error.detail, error.trouble.found if error.trouble is not None else error.detail)
        except TimeoutError:
            detail = f"no response within {CHECK_TIMEOUT_SECONDS:g} s"
            return Check(False, detail, detail)
        except Exception:  # noqa: BLE001 - a failed check counts as down; its message is not shown to clients
            structlog.get_logger("claimsvc.http").exception("health_check_failed", dependency=name)
            detail = "the health check failed unexpectedly; see the service's log"
            return Check(False, detail, detail)
        return Check(True)
