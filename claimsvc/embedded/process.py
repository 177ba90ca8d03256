"""A process under a guard: it ends when this process ends it, and also when this process is killed."""

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
    """A command that runs until it ends, `end()` is called, or this process ends for any reason.

    Args:
        command: the program and its arguments.
        account: the user to run it as; only root can choose another than its own.
        stop_signals: sent by `end()` in this order, 5 s apart, followed by SIGKILL.
        output: for its standard output and error; None inherits them.
        environment: of the command; None inherits it.
        held_fds: files kept open while it runs, such as a lock on its data.
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
            self._guard = subprocess.Popen(  # noqa: S603 - this interpreter and `guard.py`
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
                # Ctrl-C is sent to the process group, and the servers must run until the service has drained.
                start_new_session=True,
            )
        finally:
            os.close(report_end)
            with os.fdopen(report, "rb") as pipe:
                first_line = pipe.readline()
        self.pid = int(first_line) if first_line else None
        """The id of the process, not of its guard; None if it could not be started (its output says why)."""

    @property
    def guard_pid(self) -> int:
        return self._guard.pid

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process if it is running."""
        if self.running and self.pid is not None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait until the process ends. Returns its exit status; 128+n if signal n ended it."""
        return self._guard.wait()

    def end(self) -> int:
        """Stop the process with the stop signals, and wait until it has ended. May be called repeatedly.

        Returns:
            Its exit status; 128+n if signal n ended it.
        """
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        return self._guard.wait()
