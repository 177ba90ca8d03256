"""A cluster that is watched: instances of the service, and a real Prometheus that scrapes them."""

import asyncio
import json
import os
import random
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import aiohttp
import pytest
import redis

from claimsvc.background import in_background
from claimsvc.embedded import free_port
from claimsvc.prober import COUPON
from tests.observability.dashboards.prometheus import JOB, Prometheus, Sample, open_prometheus
from tests.support.admin import ADMIN_KEY
from tests.support.cluster import Cluster, open_cluster
from tests.support.haproxy import balancer, needs_haproxy
from tests.support.history import History
from tests.support.injectors.masters import client_of
from tests.support.instance import Instance
from tests.support.load import Load, Plan
from tests.support.prober import prober
from tests.support.proxy import Proxy, proxy_to

_A_STRANGER = "somebody-else"
_UP_SECONDS = 30.0
_HTTP_SECONDS = 10.0


def on_the_cluster(*, timeout_seconds: float) -> list[pytest.MarkDecorator]:
    """The marks of a module whose tests share the cluster: one worker, one event loop.

    Args:
        timeout_seconds: for each test, building the cluster included.
    """
    return [
        pytest.mark.asyncio(loop_scope="session"),
        pytest.mark.xdist_group("observability"),
        pytest.mark.timeout(timeout_seconds),
        needs_haproxy,
    ]


class WatchedCluster:
    """Real servers, real instances, and the Prometheus that scrapes them.

    Args:
        cluster: of the fault suite; it has the faults, too.
        prometheus: scrapes every instance.
        database: what all of them reach PostgreSQL through.
    """

    def __init__(self, cluster: Cluster, prometheus: Prometheus, database: Proxy) -> None:
        self.cluster = cluster
        self.prometheus = prometheus
        self.database = database
        self.others: dict[str, Sequence[int]] = {}
        """Ports of what is scraped besides the instances, by the name of its job."""
        self.complete_at = 0.0
        """When all instances had been scraped, in Unix seconds."""

    @property
    def instances(self) -> Sequence[Instance]:
        return self.cluster.instances

    async def query(self, expression: str) -> list[Sample]:
        """The value of an expression now; see `Prometheus.query`."""
        return await self.prometheus.query(expression)

    async def start(self, settings: Sequence[Mapping[str, str]]) -> None:
        """Start an instance for each of these settings, side by side, and wait until Prometheus has scraped them."""
        port = self.cluster.postgres.port
        assert self.cluster.database_url.count(f":{port}/") == 1
        through = {"CLAIMSVC_DATABASE_URL": self.cluster.database_url.replace(f":{port}/", f":{self.database.port}/")}
        await asyncio.gather(*(self.cluster.start(1, through | dict(each)) for each in settings))
        self.prometheus.scrape(*(each.port for each in self.instances), others=self.others)
        await self.prometheus.until(f'sum(up{{job="{JOB}"}}) == {len(self.instances)}', _UP_SECONDS)
        self.complete_at = time.time()

    async def change(self, coupon: str, **changes: object) -> None:
        """Change a coupon's amount or rules over HTTP; see `PATCH /api/coupons/{name}`."""
        request = urllib.request.Request(
            f"{self.instances[0].url}/api/coupons/{coupon}",
            data=json.dumps(changes).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {ADMIN_KEY}"},
            method="PATCH",
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=_HTTP_SECONDS).close())

    def load(self, coupons: Sequence[str], *, clients: int = 24, per_second: float | None = None) -> Load:
        """Clients that claim these coupons from all instances, for as long as the context lasts."""
        # They connect anew now and then: of connections that are made together, one worker may accept all.
        plan = Plan(coupons, clients=clients, per_second=per_second, repeats=0.05, moves=0.1)
        return Load(self.instances, plan, History(), random.Random(6), name=f"u{os.urandom(3).hex()}")

    def queueing(self, coupon: str, *, per_second: float) -> AbstractAsyncContextManager[None]:
        """Users who join the coupon's queue at the instances by turns, each once, for as long as the context lasts."""

        async def join() -> None:
            run = os.urandom(3).hex()
            async with aiohttp.ClientSession() as session:
                for number in count():
                    url = self.instances[number % len(self.instances)].url
                    body = {"coupon_name": coupon, "user_id": f"{run}-{number}"}
                    async with session.post(f"{url}/api/coupons/claim", json=body) as answer:
                        assert answer.status == 202, await answer.text()
                    await asyncio.sleep(1 / per_second)

        return in_background(join())

    @contextmanager
    def held_by_a_stranger(self, coupon: str) -> Iterator[None]:
        """Nobody gets the coupon's lock: it is held on every master, by nobody here."""
        key = f"claim:coupon:{coupon}"
        for master in self.cluster.masters:
            with client_of(master) as client:
                client.set(key, _A_STRANGER)
        try:
            yield
        finally:
            for master in self.cluster.masters:
                with redis.Redis.from_url(master.url) as client:
                    client.delete(key)

    async def stress(self, *arguments: str) -> None:
        """Run the stress test against all instances, to its end; it has to pass.

        Args:
            arguments: a scenario and its options.
        """
        urls = [word for instance in self.instances for word in ("--url", instance.url)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stress_test", *arguments, *urls),
            env={**os.environ, "CLAIMSVC_ADMIN_KEY": ADMIN_KEY},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            told, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        assert process.returncode == 0, told.decode()


@asynccontextmanager
async def watched_cluster(
    settings: Sequence[Mapping[str, str]], *, rule_files: Sequence[Path] = ()
) -> AsyncIterator[WatchedCluster]:
    """PostgreSQL, three masters, instances, and a Prometheus; everything ends on leaving.

    Args:
        settings: variables of each instance. One with several workers answers with the figures of all of them.
        rule_files: rules that Prometheus evaluates as often as it scrapes.

    The load balancer of Compose is before the instances, and a prober claims through it.
    """
    async with AsyncExitStack() as opened:
        # In a thread, because migrating runs an event loop of its own.
        cluster = await asyncio.to_thread(opened.enter_context, open_cluster(durable=False))
        database = await opened.enter_async_context(proxy_to("127.0.0.1", cluster.postgres.port))
        prometheus = opened.enter_context(open_prometheus(cluster.folder, rule_files=rule_files))
        watched = WatchedCluster(cluster, prometheus, database)
        ports = (free_port(), free_port(), free_port())
        url = f"http://127.0.0.1:{ports[0]}"
        await watched.start(settings)
        balanced = {f"app-{number}": each.port for number, each in enumerate(watched.instances, 1)}
        await asyncio.to_thread(opened.enter_context, balancer(balanced, cluster.folder, ports=ports))
        # Without a lock, so that no panel of locks tells of probes.
        await cluster.create_coupon(1_000_000, "row_lock", name=COUPON)
        probes = opened.enter_context(prober(url, cluster.folder, every_seconds=1))
        watched.others = {"haproxy": [ports[1]], "claimsvc-probe": [probes]}
        prometheus.scrape(*(each.port for each in watched.instances), others=watched.others)
        yield watched
