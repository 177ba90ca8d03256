"""A server whose wall clock jumps while it runs. Valkey expires keys by that clock, and PostgreSQL tells the time."""

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from claimsvc.embedded import PostgresServer, ValkeyServer
from claimsvc.embedded.programs import ValkeyProgram
from tests.support.injectors.masters import client_of

_SOURCE = Path(__file__).with_name("clock.c")
_OFFSET = struct.Struct("=q")


def why_not() -> str | None:
    """What this machine lacks for it, in a sentence; None if nothing."""
    return None if shutil.which("gcc") else "A clock that jumps is a C file, and there is no gcc here to compile it."


class JumpingClock:
    """The wall clock of one server: how far it is from everybody else's."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def jump_to(self, seconds: float) -> None:
        """Let the server live so many seconds in the future, or in the past if negative.

        The command after this may still see the old time, because Valkey reads its clock between commands.
        """
        self._memory[: _OFFSET.size] = _OFFSET.pack(round(seconds * 1000))


@contextmanager
def jumping_clock(master: ValkeyServer, folder: Path) -> Iterator[JumpingClock]:
    """Restart a master under a clock of its own; on leaving it is restarted under the machine's.

    Args:
        folder: an existing one that the servers can reach.
    """
    honest = master._program
    with _clock(folder, master.port, honest.server) as (program, clock):
        _restart_as(master, replace(honest, server=program))
        try:
            yield clock
        finally:
            _restart_as(master, honest)


@contextmanager
def jumping_clock_of_postgres(server: PostgresServer, folder: Path) -> Iterator[JumpingClock]:
    """The same for PostgreSQL, and all of its sessions."""
    honest = server._programs
    with _clock(folder, server.port, honest.postgres) as (program, clock):
        for programs in (replace(honest, postgres=program), honest):
            server.stop()
            server._programs = programs
            server.start()
            if programs is not honest:
                yield clock


@contextmanager
def _clock(folder: Path, port: int, honest: Path) -> Iterator[tuple[Path, JumpingClock]]:
    """A program that is another one under a clock of its own, and that clock."""
    shim, offsets, program = (folder / f"clock-{port}{suffix}" for suffix in (".so", "", ".sh"))
    subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", shim, _SOURCE], check=True)
    offsets.write_bytes(_OFFSET.pack(0))
    program.write_text(f'#!/bin/sh\nLD_PRELOAD={shim} FAULT_CLOCK_FILE={offsets} exec {honest} "$@"\n')
    for path, mode in ((shim, 0o755), (offsets, 0o644), (program, 0o755)):
        path.chmod(mode)
    with offsets.open("r+b") as file, mmap.mmap(file.fileno(), _OFFSET.size) as memory:
        yield program, JumpingClock(memory)


def _restart_as(master: ValkeyServer, program: ValkeyProgram) -> None:
    master.stop()
    master._program = program
    master.start()


def time_of(master: ValkeyServer) -> float:
    """What time it is, in seconds, to that master."""
    with client_of(master) as client:
        seconds, microseconds = client.time()
        return float(seconds + microseconds / 1e6)
