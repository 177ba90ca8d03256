"""A server that is started, stopped, paused, killed and restarted by itself."""

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

_START_SECONDS = 30.0  # recovery after a crash included
_POLL_SECONDS = 0.02
# Below what Linux and macOS hand out to outgoing connections, so that a stopped server finds its port free again.
_PORTS = range(20_000, 32_000)
# What a server says when the cause goes away by itself: a lost race for a port, or a killed predecessor's last
# processes that still hold the data.
_PASSING_TROUBLE = ("address already in use", "is still in use", 'lock file "postmaster.pid" already exists')


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on just now."""
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedServiceError(f"No free port was found between {_PORTS.start} and {_PORTS.stop}.")


class Server(ABC):
    """A server of ours on 127.0.0.1. Its port is chosen at the first start and kept from then on."""

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
            raise EmbeddedServiceError(f"{self.name} was not started yet, so it has no port.")
        return self._port

    @property
    def pid(self) -> int:
        """The server's own process (not its guard's)."""
        if self._process is None or self._process.pid is None:
            raise EmbeddedServiceError(f"{self.name} does not run.")
        return self._process.pid

    @property
    def guard_pid(self) -> int:
        """The process that watches over the server."""
        if self._process is None:
            raise EmbeddedServiceError(f"{self.name} does not run.")
        return self._process.guard_pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    @abstractmethod
    def url(self) -> str: ...

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers.

        Raises:
            EmbeddedServiceError: it does not come up within 30 s; the message has its own last words.
        """
        self.begin_start()
        self.finish_start()

    def begin_start(self) -> None:
        """The first half of `start`, so that several servers can come up side by side."""
        if not self.running:
            self._launch()

    def finish_start(self) -> None:
        """Wait for what `begin_start` began, and try again where the trouble passes by itself."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if not self.running:
                told = self._log.read_text(errors="replace").lower()
                if not any(trouble in told for trouble in _PASSING_TROUBLE):
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
        """End it in its orderly way and wait until it has ended."""
        if self._process is not None:
            self._process.end()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until it has ended."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Hold it up: connections stay open and nothing is answered until `resume`."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        # The server first: a paused one starts no further process while the list is read.
        os.kill(self.pid, number)
        for pid in _children_of(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _launch(self) -> None:
        self.stop()  # to have the previous guard's pipe closed
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
        telling = [line for line in lines if "FATAL" in line or "Could not" in line or "Failed" in line]
        return (telling or lines or ["it said nothing"])[-1].strip()

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...


def _children_of(pid: int) -> list[int]:
    """The processes that a server has started. Known from /proc, so on Linux only; elsewhere none are found."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
