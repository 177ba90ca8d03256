"""An embedded PostgreSQL server."""

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
    """A PostgreSQL with one database and a generated password, reachable only over TCP.

    Args:
        state: the folder that keeps its data between runs.
        programs: the installation to run.
        durable: whether a commit survives a crash of the machine; tests turn it off for speed.
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
        """Return the URL of one of its databases, with its user and password."""
        password = self._password_file.read_text().strip()
        return f"postgresql://claimsvc:{password}@127.0.0.1:{self.port}/{database}"

    def _prepare(self) -> None:
        if self._data.exists():
            made_by = (self._data / "PG_VERSION").read_text().strip()
            if made_by != self._programs.major or not self._password_file.exists():
                raise EmbeddedServiceError(
                    f"{self._data} was created by PostgreSQL {made_by} and cannot be used by version "
                    f"{self._programs.version}: delete it with --fresh, or choose another state folder."
                )
            return
        write_private(self._password_file, f"{secrets.token_hex(16)}\n")
        self._state.account.own(self._password_file)
        # Created under another name and renamed, so that an interrupted run leaves no incomplete data folder.
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        made = subprocess.run(  # noqa: S603 - a program that `find_postgres` found
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
            raise EmbeddedServiceError(f"PostgreSQL could not create its data folder: {made.stdout.strip()}")
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
        """Delete postmaster.pid if another program has its process id, as after a crash: PostgreSQL would not start.

        A file whose process is gone is kept: PostgreSQL replaces it after checking that no child is left.
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
            "unix_socket_directories": "",  # not needed, and the path could be too long
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
