"""One instance of the service: the real command line as a process of its own."""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from claimsvc.embedded import GuardedProcess, current_account, free_port
from tests.support.waiting import comes_about

SERVICE = ("claimsvc", "serve")

_START_SECONDS = 60.0
_END_SECONDS = 60.0
_HTTP_SECONDS = 5.0


class ClusterError(Exception):
    """The cluster is not as a scenario needs it; the message says why."""


class Instance:
    """One instance of the service: `python -m claimsvc serve` as a process of its own, on a port that it keeps.

    Args:
        name: what the history and the log call it.
        settings: its environment variables, `CLAIMSVC_*`.
        log: where its lines go; kept from one start to the next.
        command: the module to run and its arguments.
    """

    def __init__(self, name: str, settings: Mapping[str, str], log: Path, command: Sequence[str] = SERVICE) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = dict(settings)
        self.log = log
        self.is_paused = False
        self._command = tuple(command)
        self._process: GuardedProcess | None = None

    @property
    def pid(self) -> int:
        if self._process is None or self._process.pid is None:
            raise ClusterError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    async def start(self, settings: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it is ready.

        Args:
            settings: variables for this run of it only, on top of its own.
        """
        await asyncio.to_thread(self.launch, settings)
        await self.ready()

    def launch(self, settings: Mapping[str, str] | None = None) -> None:
        """Start it without waiting."""
        if self.running:
            raise ClusterError(f"{self.name} runs already")
        self.close()  # what is left of its last run
        self.is_paused = False
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMSVC_")}
        with self.log.open("ab") as output:
            self._process = GuardedProcess(
                [sys.executable, "-m", *self._command],
                account=current_account(),
                output=output,
                environment=inherited | self.settings | {"CLAIMSVC_PORT": str(self.port)} | dict(settings or {}),
            )

    async def ready(self) -> None:
        """Wait until it says that it is."""

        async def is_ready_or_gone() -> bool:
            return await asyncio.to_thread(self.is_ready) or not self.running

        if not await comes_about(is_ready_or_gone, _START_SECONDS):
            raise ClusterError(f"{self.name} was not ready in {_START_SECONDS:.0f} s: {self.last_words()}")
        if not self.running:
            raise ClusterError(f"{self.name} ended instead of serving: {self.last_words()}")

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/readyz", timeout=_HTTP_SECONDS).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return False
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, paused or not, and wait until it is gone."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and its locks, and does nothing."""
        self.is_paused = True
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        self.is_paused = False
        os.kill(self.pid, signal.SIGCONT)

    async def until_paused(self, timeout_seconds: float = 30.0) -> None:
        """Wait until the process has stopped itself, by a failpoint."""
        if not await comes_about(lambda: _process_state(self.pid) in "Tt", timeout_seconds):
            raise ClusterError(f"{self.name} has not stopped itself in {timeout_seconds:.0f} s")
        self.is_paused = True

    async def terminate(self) -> int:
        """SIGTERM, and wait for the end. The result is its exit status."""
        if self._process is None:
            raise ClusterError(f"{self.name} does not run")
        self._process.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self, timeout_seconds: float = _END_SECONDS) -> int:
        """Wait for its end, by itself. The result is its exit status, 128+n if signal n ended it."""
        if not await comes_about(lambda: not self.running, timeout_seconds):
            raise ClusterError(f"{self.name} has not ended in {timeout_seconds:.0f} s")
        assert self._process is not None
        return self._process.wait()

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)
            self._process.end()

    def fired(self, point: str) -> int:
        """How often its failpoint of that name has fired, over all its runs."""
        return self.events("failpoint fired", point=point)

    def events(self, event: str, **fields: object) -> int:
        """How many log lines there are of that event with those fields."""
        found = 0
        with self.log.open("rb") as lines:
            for line in lines:
                if event.encode() in line and line.startswith(b"{"):
                    told = json.loads(line)
                    found += told["event"] == event and all(told.get(name) == value for name, value in fields.items())
        return found

    async def metrics(self) -> str:
        """What it exports just now."""
        return await asyncio.to_thread(self._metrics)

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=_HTTP_SECONDS) as answer:
            return str(answer.read(), "utf-8")

    def last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-2000:] or "it said nothing"


def _process_state(pid: int) -> str:
    """The letter that Linux gives it: T for one that is stopped. Known from /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
