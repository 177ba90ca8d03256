"""A process under a guard: it ends when we end it, and also when we are killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from claimsvc.embedded.account import Account

_GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A command that runs until it ends, `end()` is called, or this process is gone, however it went.

    Args:
        command: the program and its arguments.
        account: whom to run it as; only root can choose another.
        stop_signals: what asks it to end, mildest first, 5 s apart; SIGKILL follows by itself.
        output: where its standard output and error go; None leaves them as ours are.
        held_fds: files kept open for as long as it runs, such as a lock on its data.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        account: Account,
        stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,),
        output: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        held_fds: Sequence[int] = (),
    ) -> None:
        report, report_end = os.pipe()
        try:
            self._guard = subprocess.Popen(  # noqa: S603 - our own interpreter and file
                [
                    *(sys.executable, "-I", "-S", _GUARD),
                    *(str(report_end), f"{account.uid}:{account.gid}"),
                    ",".join(str(int(number)) for number in stop_signals),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[report_end, *held_fds],
                # Ctrl-C reaches a whole process group; the servers must outlive it until the service has drained.
                start_new_session=True,
            )
        finally:
            os.close(report_end)
            with os.fdopen(report, "rb") as pipe:
                first_line = pipe.readline()
        self.pid = int(first_line) if first_line else None
        """The process itself, not its guard; None if it could not be started (its output says why)."""

    @property
    def guard_pid(self) -> int:
        return self._guard.pid

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        if self.running and self.pid is not None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end; the result is its exit status, 128+n if signal n ended it."""
        return self._guard.wait()

    def end(self) -> int:
        """Ask the process to end, insist if it does not, and wait until it has. Safe to call again."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        return self._guard.wait()
