"""What the contestants stand on: databases, masters, server processes, coupons, and the load generator."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import psycopg

from claimsvc.embedded import EmbeddedServices, PostgresServer, embedded_services
from tests.bench.contestants import MASTERS, Contestant, Server
from tests.bench.coupons import CouponMaker, Coupons
from tests.bench.plan import Plan, Result
from tests.bench.programs import LoadGenerator, Viewers
from tests.bench.servers import Running, Servers

# Codes and tokens are made before they are measured, for a machine that is as fast as this.
_MOST_CLAIMS_PER_SECOND = 15_000


@dataclass(slots=True)
class Testbed:
    """Everything that runs."""

    services: EmbeddedServices
    postgres: PostgresServer
    load: LoadGenerator
    servers: Servers
    coupons: CouponMaker

    def prepare(self, contestants: Sequence[Contestant]) -> None:
        """Start what they need, side by side, end what they do not, and make the coupons that they keep."""
        wanted = dict.fromkeys(server for contestant in contestants for server in contestant.servers)
        # It makes the coupons of the baselines.
        wanted |= {Server("claimsvc", database=server.database): None for server in wanted}
        self.servers.keep(wanted)
        for server in wanted:
            self.servers.launch(server)
        for contestant in contestants:
            if contestant.is_kept:
                self.coupons.of(contestant)

    def measure(self, contestant: Contestant, *, warm_up_seconds: float, seconds: float) -> Result:
        """Measure it once.

        Raises:
            BenchError: a process that is needed has ended.
        """
        most_claims = ceil((warm_up_seconds + seconds) * _MOST_CLAIMS_PER_SECOND)
        coupons = self.coupons.of(contestant, most_claims)
        servers = [self.servers.start(server) for server in contestant.servers]
        viewers = Viewers(servers[0].port, contestant.viewers) if contestant.viewers else None
        plan = self._plan(contestant, coupons, servers, warm_up_seconds, seconds)
        if contestant.feature.tokens != "none":
            plan = replace(plan, token_key=self.servers.token_key, token_count=most_claims)
        try:
            result = self.load.measure(plan)
        finally:
            pictures_per_second = viewers.close() if viewers is not None else 0.0
        coupons.next_user += result.users
        for server in servers:
            self.servers.check_running(server)
            os.truncate(server.log, 0)  # a line for each request is much, and nobody reads them
        return replace(result, pictures_per_second=pictures_per_second)

    def _plan(
        self,
        contestant: Contestant,
        coupons: Coupons,
        servers: Sequence[Running],
        warm_up_seconds: float,
        seconds: float,
    ) -> Plan:
        feature = contestant.feature
        return Plan(
            ports=[server.port for server in servers],
            connections=contestant.connections,
            coupons=coupons.names,
            expected=contestant.expected,
            warm_up_seconds=warm_up_seconds,
            seconds=seconds,
            skew=contestant.skew,
            first_user=coupons.next_user,
            warm_up_answers=contestant.users,
            watched={
                "server": [server.process.pid or 0 for server in servers],
                "postgres": [self.postgres.pid],
                "redis": [master.pid for master in self.services.masters],
            },
            members=feature.claim,
            idempotency_keys=feature.idempotency_keys,
            claims_per_user=feature.claims_per_user,
            users=contestant.users,
        )

    def versions(self) -> dict[str, str]:
        """What is measured on, for the record."""
        with psycopg.connect(self.postgres.url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return {"postgresql": row[0] if row else "", "masters": self.services.masters[0].name.rpartition(" master")[0]}


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
        servers = Servers(services, services.postgres)
        stack.callback(servers.close)
        yield Testbed(services, services.postgres, load, servers, CouponMaker(servers, report))
