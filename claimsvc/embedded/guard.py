"""Runs one server, and ends it when the process that started the guard is gone.

A separate program that uses only the standard library, started as `python -I -S guard.py`:

    guard.py REPORT_FD UID:GID STOP_SIGNALS COMMAND ...

It writes the server's process id to REPORT_FD. Its standard input is a pipe that is never written to: end-of-file
means that the parent has closed it or was killed, so the guard ends the server. It sends the STOP_SIGNALS (`2,3`) in
turn, then SIGKILL, and then kills the processes that the server left behind. On Linux the kernel also ends the server
if the guard itself is killed.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

PATIENCE_SECONDS = 5.0  # between one stop signal and the next
_PR_SET_PDEATHSIG = 1  # both from linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Run the command until it or standard input ends. Returns its exit status; 128+n if signal n ended it."""
    report_fd, account, numbers, *command = arguments
    stop_signals = [int(number) for number in numbers.split(",")]
    wakeups, wakeup_end = os.pipe()
    os.set_blocking(wakeup_end, False)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    # Handlers, not SIG_IGN, because the server would inherit SIG_IGN. The guard does not act on Ctrl-C or a closed
    # terminal: its parent does.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _note)
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # the server's orphans become children of the guard
    uid, gid = (int(part) for part in account.split(":"))
    change_account = os.geteuid() == 0 and uid != 0
    server = subprocess.Popen(  # noqa: S603 - the command comes from the parent
        command,
        stdin=subprocess.DEVNULL,
        user=uid if change_account else None,
        group=gid if change_account else None,
        extra_groups=[] if change_account else None,
        preexec_fn=_tie_to_parent(stop_signals[-1]) if sys.platform == "linux" else None,
    )
    os.write(int(report_fd), b"%d\n" % server.pid)
    os.close(int(report_fd))
    _watch(server, wakeups, stop_signals)
    _end_what_is_left()
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the number is already in the wake-up pipe."""


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _tie_to_parent(number: int) -> Callable[[], None]:
    guard_pid = os.getpid()

    def tie() -> None:
        _prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != guard_pid:  # the guard was killed before the call
            os._exit(1)

    return tie


def _watch(server: subprocess.Popen[bytes], wakeups: int, stop_signals: list[int]) -> None:
    stdin = sys.stdin.fileno()
    harsher = iter(stop_signals)
    stopping = False
    while server.poll() is None:
        watched = [wakeups] if stopping else [wakeups, stdin]
        readable, _, _ = select.select(watched, [], [], PATIENCE_SECONDS if stopping else None)
        noted = os.read(wakeups, 512) if wakeups in readable else b""
        closed = stdin in readable and not os.read(stdin, 512)
        out_of_patience = stopping and not readable
        if out_of_patience or (not stopping and (closed or signal.SIGTERM in noted)):
            stopping = True
            server.send_signal(next(harsher, signal.SIGKILL))
            for pid in (server.pid, *_children_of(server.pid)):  # paused ones would not notice
                _signal(pid, signal.SIGCONT)


def _end_what_is_left() -> None:
    """Kill the server's orphans. PostgreSQL's processes end by themselves, but not while they are paused."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _children_of(os.getpid()):
                _signal(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children_of(pid: int) -> list[int]:
    """Return the children of a process, read from /proc: always empty on other systems than Linux."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
