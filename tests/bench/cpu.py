"""CPU time of processes that are not ours to ask, from Linux's /proc."""

import os
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1_000_000_000
# Places in /proc/PID/stat after the program's name, which may contain anything but is followed by the last `)`.
_OWN = slice(11, 13)  # utime, stime
_ENDED_CHILDREN = slice(13, 15)  # cutime, cstime


def is_available() -> bool:
    """Whether this system tells what is needed here."""
    return Path("/proc/self/stat").exists()


def cpu_seconds(root: int) -> float:
    """User and system time of a process and of all below it, those that have ended and were waited for included.

    It never falls while the root lives: a child's time moves to its parent when the child is waited for. A process
    that is gone counts as zero.
    """
    total = 0.0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            total += _process_seconds(pid)
            waiting += _children(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended just now, and is its parent's to count from here on
    return total


def _process_seconds(pid: int) -> float:
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ended = sum(map(int, times[_ENDED_CHILDREN])) * _TICK_SECONDS
    try:
        return ended + _threads_seconds(pid)
    except FileNotFoundError:
        return ended + sum(map(int, times[_OWN])) * _TICK_SECONDS


def _threads_seconds(pid: int) -> float:
    """The time of the living threads to the nanosecond, where the kernel keeps it (CONFIG_SCHED_INFO).

    A tick is 10 ms, which is coarse for a master that uses 30 ms in a second.
    """
    return sum(int(text.split()[0]) for text in _each_thread(pid, "schedstat")) / _NANOSECONDS


def _children(pid: int) -> list[int]:
    # Each thread has those that it has started itself.
    return [int(child) for text in _each_thread(pid, "children") for child in text.split()]


def _each_thread(pid: int, name: str) -> list[str]:
    return [(folder / name).read_text() for folder in Path(f"/proc/{pid}/task").iterdir()]
