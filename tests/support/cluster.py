"""A cluster of real processes of ours: PostgreSQL, masters, and instances of the service that run on them."""

import asyncio
import json
import secrets
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

from claimsvc.bootstrap import migrate
from claimsvc.embedded import (
    EmbeddedServices,
    PostgresServer,
    ValkeyServer,
    embedded_services,
    temporary_state_dir,
)
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.cluster_state import JOB_LOCKS, LOCK_KEYS, Quiet, Snapshot, series, take_snapshot
from tests.support.instance import SERVICE, Instance
from tests.support.ticket_log import Tickets, left_of, log_tickets, read_tickets

_HTTP_SECONDS = 5.0
_TEMPLATE = "cluster_template"


class Cluster:
    """PostgreSQL, masters and instances. `open_cluster` makes one; `clear` makes it as good as new.

    Args:
        services: servers of our own.
        folder: where logs go.
    """

    def __init__(self, services: EmbeddedServices, folder: Path) -> None:
        assert services.postgres is not None
        self.services = services
        self.postgres: PostgresServer = services.postgres
        self.masters: tuple[ValkeyServer, ...] = services.masters
        self.folder = folder
        self.instances: list[Instance] = []
        self._database = ""
        self._logged = ""
        self._coupons = 0
        with self._administration() as connection:
            connection.execute(f"CREATE DATABASE {_TEMPLATE}".encode())
        migrate(self.postgres.url_of(_TEMPLATE))
        self.clear()

    @property
    def database_url(self) -> str:
        return self.postgres.url_of(self._database)

    @property
    def lock_ttl_seconds(self) -> float:
        """Of the instances that are there; the longest, if they differ."""
        return max((float(each.settings.get("CLAIMSVC_LOCK_TTL_SECONDS", "20")) for each in self.instances), default=20)

    def clear(self) -> None:
        """End all instances; an empty database, and empty masters."""
        self.close_instances()
        previous, self._database = self._database, f"faults_{secrets.token_hex(6)}"
        with self._administration() as connection:
            if previous:
                connection.execute(f"DROP DATABASE {previous} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {self._database} TEMPLATE {_TEMPLATE}".encode())
        for master in self.masters:
            with redis.Redis.from_url(master.url) as client:
                client.flushall()

    @contextmanager
    def _administration(self) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
        with psycopg.connect(self.postgres.url_of("postgres"), autocommit=True) as connection:
            yield connection

    async def start(
        self, count: int = 1, settings: Mapping[str, str] | None = None, command: Sequence[str] = SERVICE
    ) -> list[Instance]:
        """Start instances side by side, and wait until they are ready.

        Args:
            count: how many.
            settings: variables that all of them get, on top of where the databases are.
            command: the module to run and its arguments.
        """
        made = [self.add(settings, command) for _ in range(count)]
        await asyncio.gather(*(instance.start() for instance in made))
        return made

    def add(self, settings: Mapping[str, str] | None = None, command: Sequence[str] = SERVICE) -> Instance:
        """An instance that is not started yet."""
        name = f"instance-{len(self.instances) + 1}"
        ours = {
            "CLAIMSVC_DATABASE_URL": self.database_url,
            "CLAIMSVC_REDIS_URLS": ",".join(master.url for master in self.masters),
            "CLAIMSVC_HOST": "127.0.0.1",
            "CLAIMSVC_ADMIN_KEYS": ADMIN_DIGEST,
            "CLAIMSVC_LOG_FORMAT": "json",
            "CLAIMSVC_LOG_LEVEL": "warning",  # a line for each request is much, and few scenarios read them
        }
        log = self.folder / f"{self._database}-{name}.log"
        self.instances.append(Instance(name, ours | dict(settings or {}), log, command))
        return self.instances[-1]

    async def create_coupon(
        self, amount: int, strategy: str = "redlock", name: str = "", queue: Mapping[str, int] | None = None
    ) -> str:
        """A coupon, made over HTTP by an instance that runs; with a queue if one is given. The result is its name."""
        self._coupons += 1
        name = name or f"coupon-{self._coupons:04d}"
        instance = next(each for each in self.instances if each.running and not each.is_paused)
        asked: dict[str, object] = {"name": name, "amount": amount, "strategy": strategy}
        if queue is not None:
            self._log_tickets()
            asked["queue"] = dict(queue)
        body = json.dumps(asked).encode()
        request = urllib.request.Request(
            f"{instance.url}/api/coupons",
            data=body,
            headers={"Content-Type": "application/json", **ADMIN},
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=_HTTP_SECONDS).close())
        return name

    @property
    def has_queues(self) -> bool:
        """Whether a coupon with a queue was made."""
        return self._logged == self._database

    def _log_tickets(self) -> None:
        if not self.has_queues:
            log_tickets(self.database_url)
            self._logged = self._database

    def tickets(self, clock_offsets: Sequence[float] = ()) -> Tickets:
        """All tickets, and all that became of them; see `ticket_log.read_tickets`."""
        return read_tickets(self.database_url, clock_offsets)

    def tickets_left(self) -> int:
        """How many tickets have not ended."""
        return left_of(self.database_url)

    def snapshot(self) -> Snapshot:
        """All coupons and claims, as the database has them in one moment."""
        return take_snapshot(self.database_url)

    async def quiet(self, timeout_seconds: float) -> Quiet:
        """Wait until nothing is under way any more: no lock held, no transaction open, nothing waiting.

        Returns what was seen last; whatever of it is not quiet after that time is for `checks.check_quiet` to say.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            seen = await self.look()
            if seen.is_quiet or time.monotonic() > deadline:
                return seen
            await asyncio.sleep(0.1)

    async def look(self) -> Quiet:
        """What is under way in this moment."""
        locks = await asyncio.to_thread(self._locks)
        transactions = await asyncio.to_thread(self._transactions)
        gauges: dict[str, float] = {}
        for instance in self.instances:
            if instance.running and not instance.is_paused:
                try:
                    told = await instance.metrics()
                except OSError as error:
                    gauges[f"{instance.name} does not tell its metrics ({error})"] = 1
                    continue
                for name in ("claimsvc_claims_waiting", "claimsvc_lock_waiters"):
                    gauges[f"{instance.name} {name}"] = series(told, name)
                borrowed = 'claimsvc_db_pool_connections{pool="claims",state="in_use"}'
                gauges[f"{instance.name} {borrowed}"] = series(told, borrowed)
        return Quiet(locks, transactions, gauges)

    def _locks(self) -> list[str]:
        held = []
        for master in self.masters:
            if master.running:
                with redis.Redis.from_url(master.url, socket_timeout=2, socket_connect_timeout=2) as client:
                    keys = client.scan_iter(LOCK_KEYS, count=1000)
                    held += [f"{key.decode()} on {master.name}" for key in keys if not key.startswith(JOB_LOCKS)]
        return held

    def _transactions(self) -> list[str]:
        with self._administration() as connection:
            rows = connection.execute(
                "SELECT pid, state, left(query, 60) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name = 'claimsvc' AND state <> 'idle'",
                (self._database,),
            ).fetchall()
        return [f"backend {pid} is {state}: {query}" for pid, state, query in rows]

    def close_instances(self) -> None:
        for instance in self.instances:
            instance.close()
        self.instances.clear()


@contextmanager
def open_cluster(*, masters: int = 3, durable: bool = True) -> Iterator[Cluster]:
    """Start PostgreSQL and the masters in a folder of their own; end everything on leaving.

    Args:
        masters: how many.
        durable: needed wherever PostgreSQL or a master is to crash; quicker without.
    """
    with temporary_state_dir() as folder, embedded_services(folder, masters=masters, durable=durable) as services:
        cluster = Cluster(services, folder)
        try:
            yield cluster
        finally:
            cluster.close_instances()
