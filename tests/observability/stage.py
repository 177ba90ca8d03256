"""A stage that is watched: instances of the service, and a real Prometheus that scrapes them."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import redis

from tests.faults.history import History
from tests.faults.injectors.masters import client_of
from tests.faults.load import Load, Plan
from tests.faults.stage import ADMIN_KEY, Instance, Stage, open_stage
from tests.observability.prometheus import JOB, Prometheus, Sample, open_prometheus

_A_STRANGER = "somebody-else"
_UP_SECONDS = 30.0


class WatchedStage:
    """Real servers, real instances, and the Prometheus that scrapes them.

    Args:
        stage: of the fault suite; it has the faults, too.
        prometheus: scrapes every instance that was started here.
    """

    def __init__(self, stage: Stage, prometheus: Prometheus) -> None:
        self.stage = stage
        self.prometheus = prometheus

    @property
    def instances(self) -> Sequence[Instance]:
        return self.stage.instances

    async def query(self, expression: str) -> list[Sample]:
        """The value of an expression now; see `Prometheus.query`."""
        return await self.prometheus.query(expression)

    async def start(self, *, workers: int = 1, settings: Mapping[str, str] | None = None) -> Instance:
        """Start one more instance, and wait until Prometheus has scraped it."""
        [instance] = await self.stage.start(1, {"CLAIMSVC_WORKERS": str(workers)} | dict(settings or {}))
        self.prometheus.scrape(*(each.port for each in self.stage.instances))
        await self.prometheus.until(f'up{{job="{JOB}", instance="127.0.0.1:{instance.port}"}} == 1', _UP_SECONDS)
        return instance

    def load(self, coupons: Sequence[str], *, clients: int = 24, per_second: float | None = None) -> Load:
        """Clients that claim these coupons from all instances, for as long as the context lasts."""
        # They connect anew now and then: of connections that are made together, one worker may accept all.
        plan = Plan(coupons, clients=clients, per_second=per_second, repeats=0.05, moves=0.1)
        return Load(self.instances, plan, History(), random.Random(6), name=f"u{os.urandom(3).hex()}")

    @contextmanager
    def held_by_a_stranger(self, coupon: str) -> Iterator[None]:
        """Nobody gets the coupon's lock: it is held on every master, by nobody here."""
        key = f"claim:coupon:{coupon}"
        for master in self.stage.masters:
            with client_of(master) as client:
                client.set(key, _A_STRANGER)
        try:
            yield
        finally:
            for master in self.stage.masters:
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
async def watched_stage(
    *, workers: Sequence[int] = (1, 2), rule_files: Sequence[Path] = (), settings: Mapping[str, str] | None = None
) -> AsyncIterator[WatchedStage]:
    """PostgreSQL, three masters, one instance for each of `workers`, and a Prometheus; everything ends on leaving.

    Args:
        workers: how many processes each instance has. One with several answers with the figures of all of them.
        rule_files: rules that Prometheus evaluates, every second.
        settings: variables that every instance gets.
    """
    with ExitStack() as opened:
        # In a thread, because migrating runs an event loop of its own.
        stage = await asyncio.to_thread(opened.enter_context, open_stage(durable=False))
        watched = WatchedStage(stage, opened.enter_context(open_prometheus(stage.folder, rule_files=rule_files)))
        await asyncio.gather(*(watched.start(workers=count, settings=settings) for count in workers))
        yield watched
