"""Runs the stress test from the console of a development service: one at a time, ended with the service."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import structlog

from claimsvc.embedded import GuardedProcess, current_account
from claimsvc.observability.console import Live, StressTest

_log = structlog.get_logger("claimsvc.stress")

# The console's scenarios and their arguments, sized to run for some seconds.
SCENARIOS: dict[str, Sequence[str]] = {
    "flash-sale": ("flash-sale", "--claims", "500", "--quota", "100", "--rounds", "5"),
    "stampede": ("stampede",),
    "many-coupons": ("many-coupons", "--rounds", "3"),
    "sustained": ("sustained", "--rate", "300", "--duration", "15", "--quota", "4000"),
}
_LIMIT_SECONDS = 120.0
_POLL_SECONDS = 0.1
_MOST_PROBLEMS = 5
_LONGEST_PROBLEM = 300
_STATES = {0: "passed", 1: "failed"}


class StressTests:
    """`http.framework.services.StressTests`: runs `python -m stress_test` in a subprocess against this service.

    Args:
        live: shows the running test and its result.
        url: of this service.
        admin_key: for creating coupons.
        python: the interpreter to use.
    """

    scenarios = tuple(SCENARIOS)

    def __init__(self, live: Live, url: str, admin_key: str, python: str = sys.executable) -> None:
        self._live = live
        live.scenarios = self.scenarios
        self._python = python
        self._environment = {**os.environ, "URL": url, "CLAIMSVC_ADMIN_KEY": admin_key}
        self._running: asyncio.Task[None] | None = None
        self._is_ending = False

    def start(self, scenario: str) -> bool:
        """Start a scenario, unless one is running. Returns whether it was started."""
        if self._is_ending or (self._running is not None and not self._running.done()):
            return False
        test = StressTest(scenario, "running", time.time())
        self._live.stress_test_started(test)
        self._running = asyncio.create_task(self._run(test))
        return True

    async def aclose(self) -> None:
        """End the running test, if any."""
        self._is_ending = True
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self, test: StressTest) -> None:
        try:
            # In a thread, because starting a process and reading files block.
            state = await asyncio.to_thread(self._finish, test)
        except Exception:  # noqa: BLE001 - otherwise the page would show the test as running forever
            _log.exception("the stress test could not be run")
            state = "ended"
        test.seconds = round(time.time() - test.started_at, 1)
        test.state = state

    def _finish(self, test: StressTest) -> str:
        """Run the test to its end, and return its final state."""
        with tempfile.TemporaryDirectory(prefix="claimsvc-stress-") as folder:
            result, output = Path(folder, "result.json"), Path(folder, "output")
            with output.open("wb") as output_file:
                process = GuardedProcess(
                    [self._python, "-m", "stress_test", *SCENARIOS[test.scenario], "--quiet", "--json", str(result)],
                    account=current_account(),
                    output=output_file,
                    environment=self._environment,
                )
            deadline = time.monotonic() + _LIMIT_SECONDS
            while process.running and not self._is_ending and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            status = process.end()
            if result.exists():
                _read(result, test)
            else:
                test.problems = _shown(output.read_text(errors="replace").strip().splitlines()[-_MOST_PROBLEMS:])
            return _STATES.get(status, "ended")


def _read(result: Path, test: StressTest) -> None:
    document = orjson.loads(result.read_bytes())
    test.claims_per_second = round(document["claims_per_second"])
    test.outcomes = {name: row["count"] for name, row in document["outcomes"].items()}
    test.problems = _shown([violation["sentence"] for violation in document["violations"]][:_MOST_PROBLEMS])


def _shown(problems: Sequence[str]) -> list[str]:
    # Shortened, because every picture contains them, ten times a second.
    return [problem[:_LONGEST_PROBLEM] for problem in problems]


@asynccontextmanager
async def stress_tests(url: str, admin_key: str) -> AsyncIterator[Callable[[Live], StressTests]]:
    """Open a factory of `StressTests`. On leaving, the running test is ended."""
    made: list[StressTests] = []

    def make(live: Live) -> StressTests:
        made.append(StressTests(live, url, admin_key))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            await each.aclose()
