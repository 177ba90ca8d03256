"""Between the service and its servers: answers lost, late or cut off, and partitions; rows 13 and 14."""

import asyncio
import random
import socket
from collections.abc import Sequence

from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.postgres import coupons, plan
from tests.faults.trial import Trial
from tests.faults.windows import (
    CLAIM_WITHIN_SECONDS,
    UNAVAILABLE_WITHIN_SECONDS,
    expect_answers_within,
    expect_recovery,
    now,
    window,
)
from tests.support.injectors import namespaces
from tests.support.proxy import Proxy, proxy_to


class _Between(Anywhere):
    """A proxy in front of each server, through which all instances talk; it is told to misbehave under load."""

    fault = "13"
    name: str
    quick = False
    within_seconds = CLAIM_WITHIN_SECONDS

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=0) as trial:
            cluster = trial.cluster
            ports = [cluster.postgres.port, *(master.port for master in cluster.masters)]
            made = [await trial.resources.enter_async_context(proxy_to("127.0.0.1", port)) for port in ports]
            database, masters = made[0], made[1:]
            await cluster.start(2, _through(trial, [("127.0.0.1", proxy.port) for proxy in made]))
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(100)
                begun = now()
                await self.hurt(trial, database, masters)
                healed = now()
                trial.healed()
                await trial.recovered()
            seen = window(trial, begun)
            expect_answers_within(trial, seen, self.within_seconds, "meanwhile")
            trial.notes.append(f"slowest {seen.slowest_seconds():.2f} s; {seen.count(503)} x 503")
            expect_recovery(trial, healed, names[0])
        return trial.row

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        """Misbehave, under load, and behave again; say what has fired."""
        raise NotImplementedError


def _through(trial: Trial, addresses: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Settings with PostgreSQL and the masters at other addresses, in that order."""
    (host, port), *masters = addresses
    return {
        "CLAIMSVC_DATABASE_URL": trial.cluster.database_url.replace(
            f"@127.0.0.1:{trial.cluster.postgres.port}/", f"@{host}:{port}/"
        ),
        "CLAIMSVC_REDIS_URLS": ",".join(f"redis://{host}:{port}/0" for host, port in masters),
    }


@scenario
class CommitsAnswerLost(_Between):
    name, quick = "the answer to COMMIT is lost, again and again", True

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        for _ in range(150 if trial.full else 15):
            database.cut_after(b"COMMIT")
            await asyncio.sleep(trial.rng.uniform(0.02, 0.1))
        trial.fired(database.cuts)


@scenario
class DatabaseSilent(_Between):
    name = "PostgreSQL's answers are lost, and nobody is told"

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        database.is_silent = True
        await asyncio.sleep(6.0)
        database.is_silent = False
        trial.fired(database.swallowed)


@scenario
class DatabaseLate(_Between):
    name = "PostgreSQL's answers come later than anybody waits"

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        database.delay_seconds = 6.0
        await asyncio.sleep(8.0)
        database.delay_seconds = 0.0
        trial.fired(database.delayed)


@scenario
class DatabaseResets(_Between):
    name = "connections to PostgreSQL are reset at random"

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        for _ in range(100 if trial.full else 10):
            trial.fired(database.reset())
            await asyncio.sleep(trial.rng.uniform(0, 0.2))


@scenario
class MastersReset(_Between):
    name, quick = "connections to the masters are reset at random", True

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        for _ in range(200 if trial.full else 20):
            trial.fired(trial.rng.choice(masters).reset())
            await asyncio.sleep(trial.rng.uniform(0, 0.2))


@scenario
class MastersAnswersCut(_Between):
    name = "answers of the masters are lost, again and again"

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        for _ in range(200 if trial.full else 30):
            trial.rng.choice(masters).cut_after(trial.rng.choice((b"SET", b"EVALSHA")))
            await asyncio.sleep(trial.rng.uniform(0, 0.1))
        trial.fired(sum(proxy.cuts for proxy in masters))


@scenario
class MastersSilent(_Between):
    name = "answers of 2 of 3 masters are lost, and nobody is told"

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        for proxy in masters[:2]:
            proxy.is_silent = True
        await asyncio.sleep(4.0)
        for proxy in masters[:2]:
            proxy.is_silent = False
        trial.fired(sum(proxy.swallowed for proxy in masters))


@scenario
class MastersLate(_Between):
    name = "answers of the masters come late, then too late"

    async def hurt(self, trial: Trial, database: Proxy, masters: Sequence[Proxy]) -> None:
        for seconds in (0.2, 0.7):  # within the time-out of half a second, and beyond it
            for proxy in masters:
                proxy.delay_seconds = seconds
            await asyncio.sleep(3.0)
        for proxy in masters:
            proxy.delay_seconds = 0.0
        trial.fired(sum(proxy.delayed for proxy in masters))


class _Partition:
    """The instances are in a network of their own, and the wires to some servers are cut: packets vanish both ways."""

    fault = "14"
    name: str
    quick = False
    cut: Sequence[int]  # 0 is PostgreSQL; from 1 on, the masters

    def needs(self) -> str | None:
        return namespaces.why_not()

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=0) as trial:
            cluster = trial.cluster
            ports = [cluster.postgres.port, *(master.port for master in cluster.masters)]
            net = await trial.use(namespaces.wires(len(ports)))
            made = [
                await trial.resources.enter_async_context(proxy_to("127.0.0.1", port, listener=net.listener(number)))
                for number, port in enumerate(ports)
            ]
            settings = _through(trial, list(zip(net.addresses, [proxy.port for proxy in made], strict=True)))
            for _ in range(2):
                instance = cluster.add(
                    settings, ("tests.support.injectors.inside", str(net.near.path), "claimsvc", "serve")
                )
                await trial.resources.enter_async_context(
                    proxy_to(
                        "127.0.0.1",
                        instance.port,
                        listener=socket.create_server(("127.0.0.1", instance.port)),
                        enter=net.near.entered,
                    )
                )
                await instance.start()
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(100)
                begun = now()
                for number in self.cut:
                    net.cut(number)
                    trial.fired(not net.has_carrier(number))
                await asyncio.sleep(10.0 if context.full else 4.0)
                healed = now()
                for number in self.cut:
                    net.mend(number)
                trial.healed()
                await trial.recovered()
            self._judge(trial, names, begun, healed)
        return trial.row

    def _judge(self, trial: Trial, names: Sequence[str], begun: int, healed: int) -> None:
        during = window(trial, begun, healed)
        trial.notes.append(f"slowest {during.slowest_seconds():.2f} s; {during.problems()}")
        if 0 in self.cut:
            expect_answers_within(trial, during, CLAIM_WITHIN_SECONDS, "without PostgreSQL")
            trial.expect(during.count(503) > 0, f"nobody was told 503: {during.problems()}")
        elif len(self.cut) > 1:
            locked = during.of(names[0])
            expect_answers_within(trial, locked, UNAVAILABLE_WITHIN_SECONDS, "without a majority")
            trial.expect(locked.count(503) > 0, f"nobody was told 503: {locked.problems()}")
        else:
            trial.expect(not during.count(0, 500, 503), f"a minority was seen: {during.problems()}")
        expect_recovery(trial, healed, names[0])


@scenario
class CutFromMinority(_Partition):
    name, cut = "instances are cut from 1 of 3 masters", (1,)


@scenario
class CutFromMajority(_Partition):
    name, quick, cut = "instances are cut from 2 of 3 masters", True, (1, 2)


@scenario
class CutFromDatabase(_Partition):
    name, cut = "instances are cut from PostgreSQL", (0,)


@scenario
class CutFromAll(_Partition):
    name, cut = "instances are cut from everything", (0, 1, 2, 3)
