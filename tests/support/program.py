"""The program `claimsvc`: run to its end, here or as a process of its own, or started, watched and told to stop."""

import contextlib
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import structlog

from claimsvc.__main__ import main
from tests.support.waiting import block_until

CLAIMSVC = (sys.executable, "-m", "claimsvc")
DEADLINE_SECONDS = 60.0


class Program:
    """A running `claimsvc`, with what it prints in files, so that no pipe fills up."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*CLAIMSVC, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment(variables),
                cwd=folder,
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def raw_stderr(self) -> bytes:
        return self._stderr.read_bytes()

    @property
    def events(self) -> list[dict[str, object]]:
        """The log lines."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]

    def pids_of_workers(self) -> list[int]:
        """Every worker that was started, oldest first."""
        return [int(str(event["pid"])) for event in self.events if event["event"] == "worker started"]

    def count(self, event: str) -> int:
        return sum(1 for line in self.events if line["event"] == event)

    def eventually(self, condition: Callable[[], bool]) -> None:
        try:
            block_until(condition, "it happens", within_seconds=DEADLINE_SECONDS)
        except AssertionError as late:
            late.add_note(f"{self.stdout=} {self.stderr=}")
            raise

    def eventually_prints(self, pattern: str) -> str:
        """Wait for it in what is printed; the result is its first group."""
        found: list[str] = []

        def look() -> bool:
            assert self.process.poll() is None, f"ended too early: {self.stdout=} {self.stderr=}"
            found.extend(re.findall(pattern, self.stdout + self.stderr))
            return bool(found)

        self.eventually(look)
        return found[0]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)


Starter = Callable[..., Program]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    ours = ("CLAIMSVC_", "PORT", "URL", "PROMETHEUS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **variables}


def claimsvc(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLAIMSVC, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        env=environment(variables),
        check=False,
    )


def claimsvc_here(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """As `claimsvc`, but in a thread of this process, which takes a hundredth of the time.

    What would end in a traceback is raised. What reaches the log is for `claimsvc`: loggers that other tests have used
    go on as they were.
    """
    with ThreadPoolExecutor(1) as thread:  # commands run event loops of their own, and a test may be in one
        return thread.submit(_run_here, arguments, variables).result()


def _run_here(arguments: tuple[str, ...], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = _captured("strict"), _captured("backslashreplace")
    status: object = 0
    with _surroundings_kept(), Path(os.devnull).open() as stdin:
        with (
            patch.dict(os.environ, environment(variables), clear=True),
            patch.multiple(sys, argv=["claimsvc", *arguments], stdin=stdin, stdout=stdout, stderr=stderr),
        ):
            try:
                main()
            except SystemExit as end:
                status = end.code
    return subprocess.CompletedProcess(
        arguments, status if isinstance(status, int) else int(status is not None), _text_of(stdout), _text_of(stderr)
    )


def _captured(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def _text_of(captured: io.TextIOWrapper) -> str:
    captured.flush()
    captured.seek(0)
    return captured.read()


@contextlib.contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Commands configure the log, for the whole process."""
    events, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level

    def configure(**settings: Any) -> None:
        really_configure(**{**settings, "cache_logger_on_first_use": False})  # which nothing could take back

    really_configure = structlog.configure
    try:
        with patch.object(structlog, "configure", configure):
            yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        structlog.configure(**events)


def call(url: str, method: str, path: str, body: object = None, key: str = "") -> tuple[int, bytes]:
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_on(folder: Path) -> list[int]:
    """The processes that work in a folder or name it: every server and guard does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = str(folder).encode() in (process / "cmdline").read_bytes()
            if named or (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def address(program: Program) -> str:
    return "http://" + program.eventually_prints(r'"address":"([^"]+)"')


def listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True
