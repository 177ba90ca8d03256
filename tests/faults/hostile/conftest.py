"""The real service in a process of its own, on real servers, as the worst of its clients meets it."""

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from claimsvc.embedded import EmbeddedServices
from tests.support.admin import ADMIN_DIGEST
from tests.support.databases import copy_of
from tests.support.program import Program
from tests.support.raw_http import Answer, connected, request
from tests.support.waiting import until

# Short, so that whoever is late is found late soon; long enough for a machine that is busy with other tests.
LIMIT_SECONDS = 1.0


@dataclass
class Victim:
    """A running `claimsvc serve`, with what it has logged and what it has stored."""

    program: Program
    port: int
    database_url: str
    database: psycopg.Connection[tuple[Any, ...]]
    _fences: Iterator[int] = field(default_factory=itertools.count)
    _read_lines: int = 0

    async def ask(self, *args: Any, **options: Any) -> Answer:
        """One request over a connection of its own."""
        async with connected(self.port) as wire:
            await wire.send(request(*args, **options, Connection="close"))
            answer = await wire.answer()
            assert answer is not None
            return answer

    async def is_healthy(self) -> bool:
        """Whether it still answers, and is ready."""
        return (await self.ask("GET", "/readyz")).status == 200

    async def new_lines(self) -> list[dict[str, Any]]:
        """What was logged since the last call. Fails unless each line is one JSON object.

        A request of our own marks the end, because a line may be written some time after its answer.
        """
        fence = f"fence-{next(self._fences)}"
        assert (await self.ask("GET", "/readyz", X_Request_ID=fence)).status == 200
        lines: list[dict[str, Any]] = []

        def is_complete() -> bool:
            raw = self.program.raw_stderr().split(b"\n")[self._read_lines : -1]
            lines[:] = map(json.loads, raw)
            assert all(isinstance(line, dict) for line in lines)
            return bool(lines) and lines[-1].get("request_id") == fence

        await until(is_complete, "the request that marks the end is logged")
        self._read_lines += len(lines)
        return lines[:-1]

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stored(self) -> tuple[Any, ...]:
        """Everything that was written: how many coupons, units, claims, rules and kept answers there are."""
        counted = (
            "SELECT count(*), sum(remaining_amount), (SELECT count(*) FROM user_claims),"
            " (SELECT count(*) FROM campaigns), (SELECT count(*) FROM idempotent_answers) FROM coupons"
        )
        row = self.database.execute(counted).fetchone()
        assert row is not None
        return row

    def connections(self) -> int:
        """How many connections clients have with it, as the kernel knows them from its side."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {row[9] for row in rows if row[1].endswith(f":{self.port:04X}") and row[3] != "0A"}
        held = 0
        for fd in Path(f"/proc/{self.program.process.pid}/fd").iterdir():
            with suppress(OSError):
                held += fd.readlink().name.removeprefix("socket:[").removesuffix("]") in inodes
        return held

    def memory_bytes(self) -> int:
        """What the process keeps in memory now."""
        status = Path(f"/proc/{self.program.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


Serve = Callable[..., Victim]


@contextmanager
def serving(services: EmbeddedServices, template: str, folder: Path) -> Iterator[Serve]:
    """Starts services, each with a database of its own, and the coupons `plenty` (1000) and `last` (1).

    Each takes its settings as variables; `database_port` is where it finds PostgreSQL, if that is not its own.
    """
    assert services.postgres is not None
    with ExitStack() as stack:

        def serve(*, database_port: int | None = None, **variables: str) -> Victim:
            assert services.postgres is not None
            url = stack.enter_context(copy_of(services.postgres, template))
            for master_url in services.redis_urls:
                # The service of an earlier test was killed, and may have left the lock of a coupon of the same name.
                with redis.Redis.from_url(master_url) as master:
                    master.flushall()
            place = folder / f"service-{len(list(folder.iterdir()))}"
            place.mkdir()
            limits = {f"CLAIMSVC_{what}_TIMEOUT_SECONDS": str(LIMIT_SECONDS) for what in ("HEADER", "BODY", "WRITE")}
            settings = {
                "CLAIMSVC_DATABASE_URL": url.replace(f":{services.postgres.port}/", f":{database_port}/")
                if database_port
                else url,
                "CLAIMSVC_REDIS_URLS": ",".join(services.redis_urls),
                "CLAIMSVC_ADMIN_KEYS": ADMIN_DIGEST,
                "CLAIMSVC_PORT": "0",
                "CLAIMSVC_LOG_FORMAT": "json",
                "CLAIMSVC_LOG_REQUESTS_PER_SECOND": "1000000",  # a line for each, so that none can hide
                **limits,
                **variables,
            }
            program = Program(place, ("serve",), settings)
            stack.callback(program.process.wait)
            stack.callback(program.process.kill)
            database = stack.enter_context(psycopg.connect(url, autocommit=True))
            database.execute(
                "INSERT INTO coupons (name, amount, remaining_amount, strategy) VALUES "
                "('plenty', 1000, 1000, 'redlock'), ('last', 1, 1, 'redlock')"
            )
            port = program.eventually_prints(r'address"?[:=]"?127\.0\.0\.1:(\d+)')
            return Victim(program, int(port), url, database)

        yield serve


# Ended with its package: the console of an instance of any later test would show it, because they share the masters.
@pytest.fixture(scope="package")
def shared_victim(
    services: EmbeddedServices, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Victim]:
    with serving(services, template_database, tmp_path_factory.mktemp("shared")) as serve:
        yield serve()


@pytest.fixture
async def victim(shared_victim: Victim) -> Victim:
    """A service that many tests share: what one does to it, the next suffers."""
    await shared_victim.new_lines()
    return shared_victim


@pytest.fixture
def serve(services: EmbeddedServices, template_database: str, tmp_path: Path) -> Iterator[Serve]:
    """Starts services for this test alone."""
    with serving(services, template_database, tmp_path) as start:
        yield start
