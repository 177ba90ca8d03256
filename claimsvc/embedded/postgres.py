"""A PostgreSQL of our own."""

import contextlib
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from claimsvc.embedded.programs import PostgresPrograms
from claimsvc.embedded.servers import Server
from claimsvc.embedded.state import StateDir, write_private
from claimsvc.errors import EmbeddedServiceError


class PostgresServer(Server):
    """A PostgreSQL with one database and a generated password, over TCP alone.

    Args:
        state: the folder that keeps its data between runs.
        programs: the installation to run.
        durable: whether a commit survives a crash of the machine; tests do without it for speed.
    """

    name = "PostgreSQL"
    _stop_signals = (signal.SIGINT, signal.SIGQUIT)  # fast shutdown, then immediate

    def __init__(self, state: StateDir, programs: PostgresPrograms, *, durable: bool = True) -> None:
        super().__init__(state, "postgres", durable=durable)
        self._programs = programs
        self._data = self._folder / "data"
        self._password_file = self._folder / "password"

    @property
    def url(self) -> str:
        return self.url_of("claimsvc")

    def url_of(self, database: str) -> str:
        """The URL of one of its databases, for its only user."""
        password = self._password_file.read_text().strip()
        return f"postgresql://claimsvc:{password}@127.0.0.1:{self.port}/{database}"

    def _prepare(self) -> None:
        if self._data.exists():
            made_by = (self._data / "PG_VERSION").read_text().strip()
            if made_by != self._programs.major or not self._password_file.exists():
                raise EmbeddedServiceError(
                    f"{self._data} was made by PostgreSQL {made_by} and cannot be used by this one "
                    f"({self._programs.version}): throw it away with --fresh, or choose another state folder."
                )
            return
        write_private(self._password_file, f"{secrets.token_hex(16)}\n")
        self._state.account.own(self._password_file)
        # Made aside and renamed, so that an interrupted run leaves nothing that looks finished.
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        made = subprocess.run(  # noqa: S603 - a program that we found ourselves
            [
                *(self._programs.initdb, "--pgdata", unfinished, "--pwfile", self._password_file),
                *("--username=claimsvc", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                *(() if self._durable else ("--no-sync",)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd=self._folder,
            **self._state.account.popen_arguments(),
        )
        if made.returncode != 0:
            raise EmbeddedServiceError(f"PostgreSQL could not make its data folder: {made.stdout.strip()}")
        unfinished.rename(self._data)

    def begin_start(self) -> None:
        if not self.running:
            self._prepare()
            self._clear_reused_pid()
        super().begin_start()

    def finish_start(self) -> None:
        super().finish_start()
        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=10) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'claimsvc'").fetchone():
                connection.execute("CREATE DATABASE claimsvc")

    def _clear_reused_pid(self) -> None:
        """After a crash another program may have the number in the old postmaster.pid; PostgreSQL would give up.

        One whose process is gone stays: PostgreSQL replaces it, and first makes sure that no child is left over.
        """
        pid = self._postmaster_status()[:1]
        if not pid or not pid[0].isdigit():
            return
        program = Path(f"/proc/{pid[0]}/exe")
        with contextlib.suppress(OSError):
            if program.readlink() != self._programs.postgres.resolve():
                (self._data / "postmaster.pid").unlink()

    def _command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",  # a long path would not fit, and nobody needs one
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [
            *(self._programs.postgres, "-D", self._data),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ]

    def _is_ready(self) -> bool:
        if not self.running:
            return False
        lines = self._postmaster_status()
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _postmaster_status(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []
