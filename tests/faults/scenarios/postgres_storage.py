"""A PostgreSQL whose disk is full, or that is replaced by its standby: row 15 of the fault table."""

import asyncio
import random

from claimsvc.embedded import temporary_state_dir
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.postgres import coupons, plan
from tests.faults.trial import Trial
from tests.faults.windows import CLAIM_WITHIN_SECONDS, expect_answers_within, expect_recovery, now, window
from tests.support.injectors import disk, standby
from tests.support.injectors.postgres import connect, said
from tests.support.proxy import proxy_to
from tests.support.waiting import block_until

_FULL = "No space left on device"


@scenario
class DiskFull:
    fault, name, quick = "15", "the disk of the claims is full", False

    def needs(self) -> str | None:
        return disk.why_not()

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2, own_servers=True) as trial:
            cluster = trial.cluster
            names = await coupons(trial)
            small = await trial.use(disk.small_disk(cluster.services, megabytes=64))
            await trial.use(disk.claims_on(small, cluster.database_url))
            async with trial.load(plan(names)):
                await trial.acknowledged(200)
                begun = now()
                await asyncio.to_thread(small.fill)
                full = lambda: said(cluster.folder, _FULL) > 10  # noqa: E731
                await asyncio.to_thread(block_until, full, "PostgreSQL has met the full disk")
                await asyncio.sleep(2.0)
                trial.fired(said(cluster.folder, _FULL))
                small.clear()
                healed = now()
                trial.healed()
                await trial.recovered()
            seen = window(trial, begun)
            trial.expect(seen.count(503) > 0, f"nobody was told 503: {seen.problems()}")
            expect_answers_within(trial, seen, CLAIM_WITHIN_SECONDS, "while the disk was full")
            expect_recovery(trial, healed, names[0])
        return trial.row


@scenario
class LogDiskFull:
    """PostgreSQL cannot do without its write-ahead log: it crashes, and does not come up until there is room."""

    fault, name, quick = "15", "the disk of the write-ahead log is full", False

    def needs(self) -> str | None:
        return disk.why_not()

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=0, own_servers=True, durable=True) as trial:
            cluster = trial.cluster
            small = await trial.use(disk.small_disk(cluster.services, megabytes=160))
            await trial.use(disk.log_on(small, cluster.services))
            await cluster.start(2)
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(200)
                begun = now()
                await asyncio.to_thread(small.fill)
                await asyncio.to_thread(_use_up_log, trial)
                trial.fired(said(cluster.folder, "PANIC"))
                await asyncio.sleep(2.0)
                small.clear()
                # It has given up, or still tries to recover; either way whoever runs it starts it.
                await asyncio.to_thread(cluster.postgres.kill)
                await asyncio.to_thread(cluster.postgres.start)
                healed = now()
                trial.healed()
                await trial.recovered()
            expect_answers_within(trial, window(trial, begun), CLAIM_WITHIN_SECONDS, "while there was no log")
            expect_recovery(trial, healed, names[0])
        return trial.row


def _use_up_log(trial: Trial) -> None:
    """Begin one segment after the other, until there is no room for the next."""

    def crashed() -> bool:
        try:
            with connect(trial.cluster.database_url) as session:
                session.execute("SELECT pg_logical_emit_message(true, 'fault', repeat('x', 1000000)), pg_switch_wal()")
        except Exception:  # noqa: BLE001 - it crashes while it answers
            pass
        return said(trial.cluster.folder, "PANIC") > 0

    block_until(crashed, "PostgreSQL has crashed")


@scenario
class FailedOver(Anywhere):
    """The primary is killed and its standby takes over, at an address that the service knows already."""

    fault, name, quick = "15", "PostgreSQL fails over to its standby", False

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=0, own_servers=True, durable=True) as trial:
            cluster = trial.cluster
            folder = await trial.use(temporary_state_dir())
            second = await trial.use(standby.standby_of(cluster.services, folder / "standby"))
            proxy = await trial.resources.enter_async_context(proxy_to("127.0.0.1", cluster.postgres.port))
            url = cluster.database_url.replace(f":{cluster.postgres.port}/", f":{proxy.port}/")
            await cluster.start(2, {"CLAIMSVC_DATABASE_URL": url})
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(500)
                begun = now()
                await asyncio.to_thread(cluster.postgres.kill)
                await asyncio.to_thread(standby.promote, second)
                proxy.target = ("127.0.0.1", second.port)
                cluster.postgres = second
                trial.fired()
                healed = now()
                trial.healed()
                await trial.recovered()
            expect_answers_within(trial, window(trial, begun), CLAIM_WITHIN_SECONDS, "while it failed over")
            expect_recovery(trial, healed, names[0])
        return trial.row
