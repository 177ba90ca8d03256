"""The base class of embedded servers: start, stop, kill, pause and resume."""

import contextlib
import os
import random
import signal
import socket
import time
from abc import ABC, abstractmethod
from pathlib import Path

from claimsvc.embedded.process import GuardedProcess
from claimsvc.embedded.state import StateDir
from claimsvc.errors import EmbeddedServiceError

_START_SECONDS = 30.0  # including recovery after a crash
_POLL_SECONDS = 0.02
# Below the ephemeral ports of Linux and macOS, so that the port of a stopped server stays free.
_PORTS = range(20_000, 32_000)
# Messages of failures that pass: a lost race for a port, or processes of a killed server that still hold the data.
_TRANSIENT_FAILURES = ("address already in use", "is still in use", 'lock file "postmaster.pid" already exists')


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now.

    Raises:
        EmbeddedServiceError: no free port was found.
    """
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedServiceError(f"No free port was found between {_PORTS.start} and {_PORTS.stop}.")


class Server(ABC):
    """An embedded server on 127.0.0.1. Its port is chosen at the first start and then kept.

    Args:
        state: the folder that keeps its data between runs.
        folder_name: of its folder inside `state`.
        durable: whether its writes survive a crash of the machine.
    """

    name: str
    _stop_signals: tuple[signal.Signals, ...]

    def __init__(self, state: StateDir, folder_name: str, *, durable: bool) -> None:
        self._state = state
        self._folder = state.server_folder(folder_name)
        self._durable = durable
        self._log = self._folder / "log"
        self._port: int | None = None
        self._port_is_settled = False
        self._process: GuardedProcess | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise EmbeddedServiceError(f"{self.name} has no port before its first start.")
        return self._port

    @property
    def pid(self) -> int:
        """The id of the server's process, not of its guard."""
        if self._process is None or self._process.pid is None:
            raise EmbeddedServiceError(f"{self.name} is not running.")
        return self._process.pid

    @property
    def guard_pid(self) -> int:
        """The id of the guard's process."""
        if self._process is None:
            raise EmbeddedServiceError(f"{self.name} is not running.")
        return self._process.guard_pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    @abstractmethod
    def url(self) -> str: ...

    def start(self) -> None:
        """Start the server unless it is running, and wait until it answers.

        Raises:
            EmbeddedServiceError: it is not ready within 30 s; the message contains the end of its log.
        """
        self.begin_start()
        self.finish_start()

    def begin_start(self) -> None:
        """Do the first half of `start`, so that several servers can start concurrently."""
        if not self.running:
            self._launch()

    def finish_start(self) -> None:
        """Wait until the server is ready, and restart it after a transient failure. Raises as `start`."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if not self.running:
                log = self._log.read_text(errors="replace").lower()
                if not any(failure in log for failure in _TRANSIENT_FAILURES):
                    raise EmbeddedServiceError(f"{self.name} did not start: {self._last_words()} (see {self._log})")
                self._launch()
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedServiceError(
                    f"{self.name} did not answer within {_START_SECONDS:.0f} s: {self._last_words()} (see {self._log})"
                )
            time.sleep(_POLL_SECONDS)
        self._port_is_settled = True

    def stop(self) -> None:
        """Shut the server down and wait until it has ended."""
        if self._process is not None:
            self._process.end()

    def kill(self) -> None:
        """Kill the server with SIGKILL and wait until it has ended."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Pause the server: connections stay open and nothing is answered until `resume`."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        # The server first: while it is paused, it starts no further processes.
        os.kill(self.pid, number)
        for pid in _children_of(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _launch(self) -> None:
        self.stop()  # closes the pipe of the previous guard
        if self._port is None or not self._port_is_settled:
            self._port = free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with self._log.open("wb") as log:
            self._process = GuardedProcess(
                self._command(),
                account=self._state.account,
                stop_signals=self._stop_signals,
                output=log,
                environment=environment | {"LC_ALL": "C"},
                held_fds=[self._state.lock_fd],
            )

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "FATAL" in line or "Could not" in line or "Failed" in line]
        return (errors or lines or ["its log is empty"])[-1].strip()

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...


def _children_of(pid: int) -> list[int]:
    """Return the children of a process, read from /proc: always empty on other systems than Linux."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
