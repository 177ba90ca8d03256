"""The server processes: each is started when it is first wanted, and stays while a phase needs it."""

import hashlib
import os
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psycopg
from psycopg import sql

from claimsvc.bootstrap import migrate
from claimsvc.embedded import EmbeddedServices, GuardedProcess, PostgresServer, current_account, free_port
from tests.bench.contestants import MAIN_DATABASE, Server
from tests.bench.programs import BenchError
from tests.bench.tokens import AUDIENCE, ISSUER, new_key

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_HTTP_SECONDS = 10.0


@dataclass(slots=True)
class Running:
    """A server that was started."""

    process: GuardedProcess
    port: int
    log: Path
    ready: bool = False


@dataclass(slots=True)
class Servers:
    """All server processes.

    Attributes:
        admin_key: may do everything, at each instance of the service.
        token_key: signs the tokens that instances accept which verify any.
    """

    services: EmbeddedServices
    postgres: PostgresServer
    admin_key: str = field(default_factory=secrets.token_urlsafe)
    token_key: str = field(init=False)
    _keys_file: Path = field(init=False)
    _running: dict[Server, Running] = field(default_factory=dict)
    _databases: set[str] = field(default_factory=set)
    _count: int = 0

    def __post_init__(self) -> None:
        self.token_key, keys = new_key()
        self._keys_file = self.services.state_dir / "token-keys.json"
        self._keys_file.write_bytes(orjson.dumps(keys))

    def launch(self, server: Server) -> Running:
        """Start a server, unless it runs."""
        if server in self._running:
            return self._running[server]
        self._make_database(server.database)
        port = free_port()
        self._count += 1
        log = self.services.state_dir / f"server-{self._count}.log"
        command = ["claimsvc", "serve"] if server.kind == "claimsvc" else ["tests.bench.baselines", server.kind]
        with log.open("ab") as output:
            process = GuardedProcess(
                [sys.executable, "-m", *command],
                account=current_account(),
                output=output,
                environment={**os.environ, **self._settings(server, port)},
            )
        self._running[server] = Running(process, port, log)
        return self._running[server]

    def start(self, server: Server) -> Running:
        """Start a server, unless it runs, and wait until it answers.

        Raises:
            BenchError: it does not.
        """
        running = self.launch(server)
        if not running.ready:
            self._await_ready(running, server.workers)
            running.ready = True
        return running

    def keep(self, wanted: Collection[Server]) -> None:
        """End those that are not wanted any more: each works a little for itself, and keeps its connections."""
        self._end([server for server in self._running if server not in wanted])

    def close(self) -> None:
        """End all of them."""
        self._end(list(self._running))

    def _end(self, servers: Collection[Server]) -> None:
        ended = [self._running.pop(server) for server in servers]
        for running in ended:
            running.process.signal(signal.SIGTERM)
        for running in ended:
            running.process.end()

    def check_running(self, server: Running) -> None:
        """Raises BenchError: it has ended by itself."""
        if not server.process.running:
            raise BenchError(f"A server ended by itself: {_last_words(server.log)}")

    def _settings(self, server: Server, port: int) -> Mapping[str, str]:
        # Everything else is as it is shipped: the log too, which goes to a file.
        settings = {
            "CLAIMSVC_DATABASE_URL": self.postgres.url_of(server.database),
            "CLAIMSVC_REDIS_URLS": ",".join(self.services.redis_urls[: server.masters]),
            "CLAIMSVC_HOST": "127.0.0.1",
            "CLAIMSVC_PORT": str(port),
            "CLAIMSVC_WORKERS": str(server.workers),
            "CLAIMSVC_ADMIN_KEYS": hashlib.sha256(self.admin_key.encode()).hexdigest(),
        }
        if server.verifies_tokens:
            settings |= {
                "CLAIMSVC_JWT_JWKS": str(self._keys_file),
                "CLAIMSVC_JWT_ISSUER": ISSUER,
                "CLAIMSVC_JWT_AUDIENCE": AUDIENCE,
            }
        return settings | dict(server.settings)

    def _make_database(self, name: str) -> None:
        if name in self._databases:
            return
        if name != MAIN_DATABASE:
            with psycopg.connect(self.postgres.url, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        migrate(self.postgres.url_of(name))
        self._databases.add(name)

    def _await_ready(self, server: Running, workers: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready(server, workers):
            self.check_running(server)
            if time.monotonic() > deadline:
                raise BenchError(f"A server did not answer within {_START_SECONDS:.0f} s: {_last_words(server.log)}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, server: Running, workers: int) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=_HTTP_SECONDS).close()
        except urllib.error.HTTPError as answer:
            answer.close()  # of a baseline, which has no such path
        except OSError:
            return False
        # The first worker answers while the second still starts.
        return workers == 1 or server.log.read_bytes().count(b'"serving"') == workers


def overridden_settings() -> dict[str, str]:
    """The service's settings that this process was given, and passes on: for trying one out."""
    ours = {"CLAIMSVC_DATABASE_URL", "CLAIMSVC_REDIS_URLS", "CLAIMSVC_HOST", "CLAIMSVC_PORT", "CLAIMSVC_WORKERS"}
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("CLAIMSVC_") and name not in ours and "KEY" not in name
    }


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-2000:] or "it said nothing"
