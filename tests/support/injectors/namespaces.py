"""Two networks of our own with wires between them that can be cut: packets vanish, nobody is told.

Each is an anonymous network namespace, kept by a process that ends with us, so nothing is left behind however we end.
"""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from claimsvc.embedded import GuardedProcess, current_account
from tests.support.waiting import block_until

_CLONE_NEWNET = 0x40000000  # of linux/sched.h
_START_SECONDS = 5.0


@cache
def why_not() -> str | None:
    """What this machine lacks for it, in a sentence; None if nothing."""
    missing = [program for program in ("ip", "nsenter", "unshare") if shutil.which(program) is None]
    if missing:
        return f"A partition needs network namespaces, and there is no {' or '.join(missing)} here."
    if os.geteuid() != 0:
        return "A partition needs network namespaces of our own, which only root can make."
    made = subprocess.run(["unshare", "-n", "ip", "link", "add", "probe", "type", "veth"], capture_output=True)
    if made.returncode != 0:
        return f"A partition needs network namespaces, which are forbidden here: {made.stderr.decode().strip()}"
    return None


class Namespace:
    """A network of its own, for as long as `holder` lives."""

    def __init__(self, holder: GuardedProcess) -> None:
        assert holder.pid is not None
        self.pid = holder.pid
        self.path = Path(f"/proc/{holder.pid}/ns/net")
        ours = Path("/proc/self/ns/net").readlink()
        block_until(lambda: self.path.readlink() != ours, "there is a namespace", within_seconds=_START_SECONDS)

    @property
    def prefix(self) -> Sequence[str]:
        """What makes a command run inside, if put before it; the process stays the same."""
        return ("nsenter", f"--net={self.path}", "--")

    def ip(self, *arguments: str) -> None:
        """Run `ip` inside."""
        subprocess.run([*self.prefix, "ip", *arguments], check=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside with this thread, in which nothing else may run meanwhile. A socket stays where it was made."""
        with Path("/proc/thread-self/ns/net").open("rb") as ours, self.path.open("rb") as theirs:
            set_namespace(theirs.fileno())
            try:
                yield
            finally:
                set_namespace(ours.fileno())


def set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns failed")


class Wires:
    """A near network and a far one, and a wire from the near one to each of several addresses in the far one."""

    def __init__(self, near: Namespace, far: Namespace, count: int) -> None:
        self.near, self.far = near, far
        self.addresses = tuple(f"10.77.{number}.1" for number in range(count))
        for namespace in (near, far):
            namespace.ip("link", "set", "lo", "up")
        for number, address in enumerate(self.addresses):
            wire = f"wire{number}"
            near.ip("link", "add", wire, "type", "veth", "peer", "name", wire, "netns", str(far.pid))
            near.ip("addr", "add", f"10.77.{number}.2/30", "dev", wire)
            far.ip("addr", "add", f"{address}/30", "dev", wire)
            near.ip("link", "set", wire, "up")
            far.ip("link", "set", wire, "up")

    def cut(self, number: int) -> None:
        """Let every packet of one wire vanish, both ways, from now on; no connection is told."""
        self.far.ip("link", "set", f"wire{number}", "down")

    def mend(self, number: int) -> None:
        self.far.ip("link", "set", f"wire{number}", "up")

    def listener(self, number: int) -> socket.socket:
        """A listening socket at the far end of a wire, on a port of its own."""
        with self.far.entered():
            return socket.create_server((self.addresses[number], 0))

    def has_carrier(self, number: int) -> bool:
        """Whether the near end of a wire has another end to talk to."""
        shown = subprocess.run(
            [*self.near.prefix, "ip", "-o", "link", "show", f"wire{number}"], capture_output=True, text=True, check=True
        )
        return "NO-CARRIER" not in shown.stdout


@contextmanager
def wires(count: int) -> Iterator[Wires]:
    """Two namespaces and `count` wires between them."""
    with ExitStack() as stack:
        yield Wires(_namespace(stack), _namespace(stack), count)


def _namespace(stack: ExitStack) -> Namespace:
    holder = GuardedProcess(["unshare", "-n", "sleep", "infinity"], account=current_account())
    stack.callback(holder.end)
    return Namespace(holder)
