"""What the contestants stand on: databases, masters, server processes, coupons, and the load generator."""

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import psycopg
from psycopg import sql

from claimsvc.bootstrap import migrate
from claimsvc.embedded import (
    EmbeddedServices,
    GuardedProcess,
    PostgresServer,
    current_account,
    embedded_services,
    free_port,
)
from tests.bench.contestants import DEFAULT_STRATEGY, MAIN_DATABASE, MASTERS, Contestant, Server
from tests.bench.growth import clone_coupon, fill_claims
from tests.bench.load import Plan, Result

_PLENTY = 100_000_000
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_HTTP_SECONDS = 10.0


class BenchError(Exception):
    """The bench cannot go on; the message says why."""


@dataclass(slots=True)
class _Coupons:
    """Coupons that a contestant claims from, and the number of the next user who has not claimed yet."""

    names: list[str]
    next_user: int = 0


@dataclass(slots=True)
class _Running:
    process: GuardedProcess
    port: int
    log: Path
    ready: bool = False


class LoadGenerator:
    """The process that makes the claims. It ends when its standard input does, so it cannot outlive us."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us to act on
        )

    def measure(self, plan: Plan) -> Result:
        """Carry out a plan.

        Raises:
            BenchError: the process ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(plan) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("The load generator ended before it was done; what it said is above.")
        return Result(**orjson.loads(line))

    def close(self) -> None:
        """End it, in the middle of a plan if need be."""
        self._process.kill()
        self._process.communicate()


class Viewers:
    """The process that watches a console. It ends when its standard input does, so it cannot outlive us."""

    def __init__(self, port: int, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.viewers", str(port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise BenchError("The viewers of the console ended before they saw anything; what they said is above.")

    def close(self) -> float:
        """End them. The result is how many pictures a second each had."""
        said, _ = self._process.communicate()
        return float(said or 0)


@dataclass(slots=True)
class Testbed:
    """Everything that runs. Servers are started when they are first wanted, and stay."""

    services: EmbeddedServices
    postgres: PostgresServer
    load: LoadGenerator
    report: Callable[[str], None]
    admin_key: str = field(default_factory=secrets.token_urlsafe)
    _running: dict[Server, _Running] = field(default_factory=dict)
    _databases: set[str] = field(default_factory=set)
    _coupons: dict[Contestant, _Coupons] = field(default_factory=dict)
    _coupon_count: int = 0

    def prepare(self, contestants: Sequence[Contestant]) -> None:
        """Start what they need, side by side, and make the coupons that they keep for all their rounds."""
        for server in dict.fromkeys(server for contestant in contestants for server in contestant.servers):
            self._launch(server)
        for contestant in contestants:
            self._coupons_of(contestant)

    def measure(self, contestant: Contestant, *, warm_up_seconds: float, seconds: float) -> Result:
        """Measure it once.

        Raises:
            BenchError: a process that is needed has ended.
        """
        coupons = self._coupons_of(contestant)
        servers = [self._start(server) for server in contestant.servers]
        viewers = Viewers(servers[0].port, contestant.viewers) if contestant.viewers else None
        try:
            result = self.load.measure(self._plan(contestant, coupons, servers, warm_up_seconds, seconds))
        finally:
            pictures_per_second = viewers.close() if viewers is not None else 0.0
        coupons.next_user += result.users
        for server in servers:
            self._check_running(server)
            os.truncate(server.log, 0)  # a line for each request is much, and nobody reads them
        return replace(result, pictures_per_second=pictures_per_second)

    def _plan(
        self,
        contestant: Contestant,
        coupons: _Coupons,
        servers: Sequence[_Running],
        warm_up_seconds: float,
        seconds: float,
    ) -> Plan:
        return Plan(
            ports=[server.port for server in servers],
            connections=contestant.connections,
            coupons=coupons.names,
            expected=contestant.expected,
            warm_up_seconds=warm_up_seconds,
            seconds=seconds,
            skew=contestant.skew,
            first_user=coupons.next_user,
            watched={
                "server": [server.process.pid or 0 for server in servers],
                "postgres": [self.postgres.pid],
                "redis": [master.pid for master in self.services.masters],
            },
        )

    def knows_strategy(self, strategy: str) -> bool:
        """Whether the service makes a coupon of that strategy."""
        try:
            self._create_coupon(Server("claimsvc"), strategy, 1)
        except urllib.error.HTTPError as error:
            if error.code == 400:
                return False
            raise
        return True

    def versions(self) -> dict[str, str]:
        """What is measured on, for the record."""
        with psycopg.connect(self.postgres.url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return {"postgresql": row[0] if row else "", "masters": self.services.masters[0].name.rpartition(" master")[0]}

    def _coupons_of(self, contestant: Contestant) -> _Coupons:
        server = contestant.servers[0]
        if contestant.coupons == 1 and not contestant.existing_claims:
            # A fresh one each time; nobody sells it where nobody looks it up.
            name = self._next_name()
            if server.kind not in {"floor", "responder"}:
                name = self._create_coupon(server, contestant.strategy, 1 if contestant.sold_out else _PLENTY)
            return _Coupons([name])
        if contestant not in self._coupons:
            self._coupons[contestant] = self._make_coupons(contestant, server)
        return self._coupons[contestant]

    def _make_coupons(self, contestant: Contestant, server: Server) -> _Coupons:
        first = self._create_coupon(server, contestant.strategy, _PLENTY)
        with psycopg.connect(self.postgres.url_of(server.database), autocommit=True) as connection:
            names = [first, *clone_coupon(connection, first, contestant.coupons - 1)]
            if contestant.existing_claims:
                self.report(f"Filling in {contestant.name}")
                fill_claims(connection, first, contestant.existing_claims)
        return _Coupons(names, next_user=contestant.existing_claims)

    def _next_name(self) -> str:
        self._coupon_count += 1
        return f"coupon-{self._coupon_count:06d}-000000"

    def _create_coupon(self, server: Server, strategy: str, amount: int) -> str:
        maker = server if server.kind == "claimsvc" else Server("claimsvc", database=server.database)
        name = self._next_name()
        body = {"name": name, "amount": amount}
        if strategy != DEFAULT_STRATEGY:
            body["strategy"] = strategy
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._start(maker).port}/api/coupons",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.admin_key}"},
        )
        urllib.request.urlopen(request, timeout=_HTTP_SECONDS).close()
        return name

    def _start(self, server: Server) -> _Running:
        running = self._launch(server)
        if not running.ready:
            self._await_ready(running, server.workers)
            running.ready = True
        return running

    def _launch(self, server: Server) -> _Running:
        if server in self._running:
            return self._running[server]
        self._make_database(server.database)
        port = free_port()
        log = self.services.state_dir / f"server-{len(self._running) + 1}.log"
        command = ["claimsvc", "serve"] if server.kind == "claimsvc" else ["tests.bench.baselines", server.kind]
        with log.open("ab") as output:
            process = GuardedProcess(
                [sys.executable, "-m", *command],
                account=current_account(),
                output=output,
                environment={**os.environ, **self._settings(server, port)},
            )
        self._running[server] = _Running(process, port, log)
        return self._running[server]

    def close(self) -> None:
        """End all servers, side by side."""
        for running in self._running.values():
            running.process.signal(signal.SIGTERM)
        for running in self._running.values():
            running.process.end()

    def _settings(self, server: Server, port: int) -> Mapping[str, str]:
        # Everything else is as it is shipped: the log too, which goes to a file.
        return {
            "CLAIMSVC_DATABASE_URL": self.postgres.url_of(server.database),
            "CLAIMSVC_REDIS_URLS": ",".join(self.services.redis_urls[: server.masters]),
            "CLAIMSVC_HOST": "127.0.0.1",
            "CLAIMSVC_PORT": str(port),
            "CLAIMSVC_WORKERS": str(server.workers),
            "CLAIMSVC_ADMIN_KEYS": hashlib.sha256(self.admin_key.encode()).hexdigest(),
        }

    def _make_database(self, name: str) -> None:
        if name in self._databases:
            return
        if name != MAIN_DATABASE:
            with psycopg.connect(self.postgres.url, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        migrate(self.postgres.url_of(name))
        self._databases.add(name)

    def _await_ready(self, server: _Running, workers: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready(server, workers):
            self._check_running(server)
            if time.monotonic() > deadline:
                raise BenchError(f"A server did not answer within {_START_SECONDS:.0f} s: {_last_words(server.log)}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, server: _Running, workers: int) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=_HTTP_SECONDS).close()
        except urllib.error.HTTPError as answer:
            answer.close()  # of a baseline, which has no such path
        except OSError:
            return False
        # The first worker answers while the second still starts.
        return workers == 1 or server.log.read_bytes().count(b'"serving"') == workers

    def _check_running(self, server: _Running) -> None:
        if not server.process.running:
            raise BenchError(f"A server ended by itself: {_last_words(server.log)}")


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


@contextmanager
def open_testbed(state_dir: Path, report: Callable[[str], None]) -> Iterator[Testbed]:
    """Start PostgreSQL, the masters and the load generator; stop everything on leaving.

    Args:
        state_dir: where data is kept meanwhile; what is in it is thrown away.
        report: is told, in a few words, what happens.
    """
    with ExitStack() as stack:
        # Durable: nothing is traded for speed.
        services = stack.enter_context(
            embedded_services(state_dir, masters=MASTERS, durable=True, fresh=True, report=report)
        )
        assert services.postgres is not None
        load = LoadGenerator()
        stack.callback(load.close)
        testbed = Testbed(services, services.postgres, load, report)
        stack.callback(testbed.close)
        yield testbed
