"""Readiness: checks the dependencies, and caches the result briefly, so that frequent probes cost little."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from claimsvc import ports
from claimsvc.errors import UnavailableError
from claimsvc.http.server.problems import CheckBody

CHECK_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 1.0


class Readiness:
    """Runs the health checks. Concurrent probes share a run, and its result is reused while it is fresh.

    Args:
        checks: the check of each dependency, by its name; it raises `UnavailableError` if the dependency is down.
        clock: returns monotonic seconds.
    """

    def __init__(self, checks: Mapping[str, ports.HealthCheck], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = checks
        self._clock = clock
        self._turn = asyncio.Lock()
        self._fresh_until = -1.0
        self._report: Mapping[str, CheckBody] = {}
        self._stopping = False

    def stop(self) -> None:
        """Report this instance as not ready from now on, because it is stopping."""
        self._stopping = True

    async def report(self) -> Mapping[str, CheckBody]:
        """The state of each dependency, at most `FRESH_SECONDS` old."""
        if self._stopping:
            return {"claimsvc": CheckBody("down", "this instance is stopping")}
        async with self._turn:
            if self._clock() >= self._fresh_until:
                results = await asyncio.gather(*(self._check(name) for name in self._checks))
                self._report = dict(zip(self._checks, results, strict=True))
                self._fresh_until = self._clock() + FRESH_SECONDS
            return self._report

    async def _check(self, name: str) -> CheckBody:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await self._checks[name]()
        except UnavailableError as error:
            return CheckBody("down", error.detail)
        except TimeoutError:
            return CheckBody("down", f"no response within {CHECK_TIMEOUT_SECONDS:g} s")
        except Exception:  # noqa: BLE001 - a failed check counts as down; its message is not shown to clients
            structlog.get_logger("claimsvc.http").exception("health_check_failed", dependency=name)
            return CheckBody("down", "the health check failed unexpectedly; see the service's log")
        return CheckBody("ok", "")
