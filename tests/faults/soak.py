"""The soak: faults drawn at random, some upon others, under steady load on three instances."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg

from claimsvc.failpoints import POINTS
from tests.faults.scenario import Anywhere, Context, Row
from tests.faults.trial import Trial
from tests.support.instance import Instance
from tests.support.load import Plan

CLAIMS_PER_SECOND = 250.0
_PLENTY = 10_000_000
_SETTINGS = {"CLAIMSVC_LOCK_TTL_SECONDS": "3"}


class _Soak(Anywhere):
    """What the report calls it."""

    fault, name, quick = "0", "soak: faults at random", False

    async def run(self, context: Context, rng: random.Random) -> Row:
        return await soak(context, rng, 60.0)


async def soak(context: Context, rng: random.Random, seconds: float) -> Row:
    """Run for so long, then heal everything, and check everything."""
    injected: Counter[str] = Counter()
    async with context.trial(_Soak(), rng, instances=3, settings=_SETTINGS, durable=True, own_servers=True) as trial:
        stock = [(_PLENTY, name) for name in ("redlock", "redlock", "row_lock", "counter")]
        stock += [(2_000, name) for name in ("redlock", "row_lock", "counter")]
        coupons = [await trial.cluster.create_coupon(amount, name) for amount, name in stock]
        faults = _faults(trial, rng)
        ends = time.monotonic() + seconds
        async with trial.load(Plan(coupons, per_second=CLAIMS_PER_SECOND, clients=96, hang_ups=0.01)) as load:
            while time.monotonic() < ends:
                name, inject = rng.choice(faults)
                await inject()
                injected[name] += 1
                trial.fired()
                await asyncio.sleep(rng.uniform(0.2, 3.0))
                if rng.random() < 0.1:
                    # A small coupon sells out while all this goes on.
                    await _offer(trial, coupons, rng)
            trial.healed()
            await trial.recovered(500)
            del load
        trial.notes += [f"{name} {times} times" for name, times in sorted(injected.items())]
        rate = len(trial.history.invocations) / seconds
        trial.notes.append(f"{rate:.0f} requests/s")
        trial.expect(rate >= 200, f"the load was only {rate:.0f} requests/s")
    return trial.row


async def _offer(trial: Trial, coupons: list[str], rng: random.Random) -> None:
    """Put a new small coupon in the place of the last one."""
    coupons[-1] = await trial.cluster.create_coupon(
        rng.randrange(50, 500), rng.choice(("redlock", "row_lock", "counter"))
    )


def _faults(trial: Trial, rng: random.Random) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    cluster = trial.cluster

    def one() -> Instance:
        return rng.choice(cluster.instances)

    async def kill() -> None:
        victim = one()
        victim.kill()
        await asyncio.sleep(rng.uniform(0, 1))
        await victim.start()

    async def restart() -> None:
        victim = one()
        status = await victim.terminate()
        trial.expect(status == 0, f"{victim.name} ended with {status}")
        await victim.start()

    async def pause() -> None:
        victim = one()
        victim.pause()
        await asyncio.sleep(rng.uniform(0.5, 5))
        victim.resume()

    async def fail_at_a_point() -> None:
        victim = one()
        await victim.terminate()
        point = f"{rng.choice(POINTS)}=exit@{rng.randrange(1, 60)}"
        await asyncio.to_thread(victim.launch, {"CLAIMSVC_FAILPOINTS": point})
        await victim.ended(120)
        await victim.start()

    async def pause_a_master() -> None:
        master = rng.choice(cluster.masters)
        master.pause()
        await asyncio.sleep(rng.uniform(0.5, 4))
        master.resume()

    async def restart_a_master() -> None:
        master = rng.choice(cluster.masters)
        master.kill()
        await asyncio.sleep(rng.uniform(0, 2))
        await asyncio.to_thread(master.start)

    async def lose_a_majority() -> None:
        for master in cluster.masters[:2]:
            master.kill()
        await asyncio.sleep(rng.uniform(0.5, 2))
        for master in cluster.masters[:2]:
            await asyncio.to_thread(master.start)

    async def terminate_backends() -> None:
        with psycopg.connect(cluster.postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'claimsvc'"
            )

    async def crash_postgres() -> None:
        cluster.postgres.kill()
        await asyncio.to_thread(cluster.postgres.start)

    return [
        ("kill", kill),
        ("restart", restart),
        ("pause", pause),
        ("failpoint", fail_at_a_point),
        ("pause a master", pause_a_master),
        ("restart a master", restart_a_master),
        ("lose a majority", lose_a_majority),
        ("terminate backends", terminate_backends),
        ("crash PostgreSQL", crash_postgres),
    ]
