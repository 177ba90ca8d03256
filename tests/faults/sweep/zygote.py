"""Starts the service again and again without paying for its imports each time: forks of a process that has made them.

Reads one line of JSON for each process to start, the environment it gets, and answers with its process id. Every one
is killed when the input ends.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress

import claimsvc.cli.serving  # noqa: F401 - forks have it then; the command would import it itself
from claimsvc.__main__ import app
from claimsvc.tickets import dispatching
from tests.faults.sweep.leases import SHORT_LEASE_SECONDS

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the input until it ends."""
    # As in the sweep's own process.
    dispatching.LEASE_SECONDS = SHORT_LEASE_SECONDS
    dispatching._RENEW_SECONDS = SHORT_LEASE_SECONDS / 3
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    started: list[int] = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become_the_service(json.loads(line))
        started.append(pid)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _become_the_service(environment: dict[str, str]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.environ.update(environment)
    try:
        app(["serve"])
    except BaseException:  # noqa: BLE001 - it is a process of its own, and must not go on as the one it came from
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
