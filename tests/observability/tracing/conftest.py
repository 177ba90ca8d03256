"""The real service in a process of its own, and a collector that it sends its spans to."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.observability.tracing.collector import Collector, collecting
from tests.support.admin import ADMIN_DIGEST
from tests.support.program import Program


@dataclass
class Service:
    """A running `claimsvc serve` with a coupon `spring` of 100 units."""

    program: Program
    port: int
    database: psycopg.Connection[tuple[Any, ...]]
    redis_urls: tuple[str, ...]

    def claim(self, user: str, coupon: str = "spring", **headers: str) -> tuple[int, dict[str, Any]]:
        """Claim; the result is the status and the body. Underscores in names of headers are hyphens."""
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps({"user_id": user, "coupon_name": coupon})
        status, _, answer = self.ask("POST", "/api/coupons/claim", body, sent)
        return status, json.loads(answer)

    def claim_once_free(self, users: list[str], coupon: str = "spring") -> list[int]:
        """The statuses of claims that all wait for the coupon's lock, which is another's until they do."""
        with ThreadPoolExecutor(len(users)) as threads:
            with self.lock_held_by_another(coupon):
                answers = [threads.submit(self.claim, user, coupon) for user in users]
                self.program.eventually(lambda: self.metric("claimsvc_claims_waiting") == len(users))
            return [answer.result()[0] for answer in answers]

    def metric(self, series: str) -> float:
        """What a series says now; 0 if there is none."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.ask("GET", "/metrics")[2], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """One request over a connection of its own: its status, content type and body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()

    def lines(self) -> list[dict[str, Any]]:
        """The log lines of claims so far."""
        return [each for each in self.program.events if each.get("route") == "/api/coupons/claim"]

    @contextmanager
    def lock_held_by_another(self, coupon: str = "spring") -> Iterator[None]:
        """The coupon's lock is an other's on every master."""
        with ExitStack() as stack:
            masters = [stack.enter_context(redis.Redis.from_url(url)) for url in self.redis_urls]
            for master in masters:
                # An answer comes before its lock is given back.
                self.program.eventually(partial(_take, master, coupon))
            yield
            for master in masters:
                master.delete(f"claim:coupon:{coupon}")


def _take(master: redis.Redis, coupon: str) -> bool:
    return bool(master.set(f"claim:coupon:{coupon}", "another", nx=True, px=20_000))


Serve = Callable[..., Service]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def silent_collector() -> Iterator[socket.socket]:
    """A collector that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


@pytest.fixture
def serve(database_url: str, redis_urls: tuple[str, ...], tmp_path: Path) -> Iterator[Serve]:
    """Starts services, whose environment variables are given without `CLAIMSVC_`."""
    with ExitStack() as stack:

        def start(*, masters: tuple[str, ...] = redis_urls, **variables: object) -> Service:
            folder = tmp_path / f"service-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            settings = {
                "CLAIMSVC_DATABASE_URL": database_url,
                "CLAIMSVC_REDIS_URLS": ",".join(masters),
                "CLAIMSVC_ADMIN_KEYS": ADMIN_DIGEST,
                "CLAIMSVC_PORT": "0",
                "CLAIMSVC_LOG_FORMAT": "json",
                "NO_PROXY": "127.0.0.1",
                **{f"CLAIMSVC_{name}": str(value) for name, value in variables.items()},
            }
            program = Program(folder, ("serve",), settings)
            stack.callback(program.process.wait)
            stack.callback(program.process.kill)
            database = stack.enter_context(psycopg.connect(database_url, autocommit=True))
            database.execute(
                "INSERT INTO coupons (name, amount, remaining_amount, strategy) VALUES ('spring', 100, 100, 'redlock')"
            )
            port = program.eventually_prints(r'address"?[:=]"?127\.0\.0\.1:(\d+)')
            return Service(program, int(port), database, masters)

        yield start
