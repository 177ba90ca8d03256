"""Masters whose clock jumps, and masters that forget scripts or keys: rows 12 and 16 of the fault table."""

import asyncio
import random
import time
from collections import Counter

from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.postgres import coupons, plan
from tests.faults.trial import Trial
from tests.faults.windows import expect_recovery, now, window
from tests.support.cluster_state import total
from tests.support.injectors import clock
from tests.support.injectors.masters import answered, client_of, forget_keys, forget_scripts

_JUMP_SECONDS = 60.0


class _ClockJumps:
    """Locks end too soon, or far too late: a second holder does no harm, and a lock is missed for its life at most."""

    fault = "12"
    name: str
    quick = False
    masters: int

    def needs(self) -> str | None:
        return clock.why_not()

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=0, own_servers=True) as trial:
            cluster = trial.cluster
            victims = cluster.masters[: self.masters]
            clocks = [await trial.use(clock.jumping_clock(master, cluster.folder)) for master in victims]
            await cluster.start(3)
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(100)
                for _ in range(60 if context.full else 10):
                    seconds = rng.choice((-_JUMP_SECONDS, _JUMP_SECONDS))
                    for each in clocks:
                        each.jump_to(seconds)
                    await asyncio.sleep(rng.uniform(0.1, 0.4))
                    off = await asyncio.to_thread(clock.time_of, victims[0]) - time.time()
                    trial.fired(abs(off - seconds) < _JUMP_SECONDS / 2)
                for each in clocks:
                    each.jump_to(0)
                healed = now()
                trial.healed()
                await trial.recovered()
            await _note_lost_locks(trial)
            expect_recovery(trial, healed, names[0], cluster.lock_ttl_seconds)
        return trial.row


@scenario
class ClockJumps(_ClockJumps):
    name, quick, masters = "the clock of 1 of 3 masters jumps by a minute", True, 1


@scenario
class ClocksJump(_ClockJumps):
    name, masters = "the clocks of 2 of 3 masters jump by a minute", 2


@scenario
class ScriptsForgotten(Anywhere):
    """Nobody is to see it: a script that is not known is sent again."""

    fault, name, quick = "16", "every master forgets its scripts", False

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=3) as trial:
            masters = trial.cluster.masters
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(100)
                begun = now()
                before = sum([await asyncio.to_thread(answered, master, "NOSCRIPT") for master in masters])
                for _ in range(100 if context.full else 20):
                    await asyncio.to_thread(forget_scripts, masters)
                    await asyncio.sleep(rng.uniform(0.01, 0.2))
                seen = window(trial, begun)
                after = sum([await asyncio.to_thread(answered, master, "NOSCRIPT") for master in masters])
                trial.fired(after - before)
                healed = now()
                trial.healed()
                await trial.recovered()
            trial.expect(not seen.count(0, 500, 503), f"it was seen: {seen.problems()}")
            expect_recovery(trial, healed, names[0])
        return trial.row


@scenario
class KeysForgotten(Anywhere):
    """Locks vanish while they are held, so that two may hold one; and counters vanish while units are on their way."""

    fault, name, quick = "16", "every master forgets its keys", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        settings = {"CLAIMSVC_RECONCILE_SECONDS": "1", "CLAIMSVC_CLAIM_QUEUE_TIMEOUT_SECONDS": "2"}
        async with context.trial(self, rng, instances=3, settings=settings) as trial:
            names = await coupons(trial)
            async with trial.load(plan(names)):
                await trial.acknowledged(100)
                begun = now()
                for _ in range(300 if context.full else 30):
                    trial.fired(await asyncio.to_thread(forget_keys, trial.cluster.masters) > 0)
                    await asyncio.sleep(rng.uniform(0, 0.1))
                seen = window(trial, begun)
                healed = now()
                trial.healed()
                await trial.recovered()
            trial.expect(not seen.count(0, 500), f"not only success or 503: {seen.problems()}")
            trial.notes.append(seen.problems())
            await _note_lost_locks(trial)
            expect_recovery(trial, healed, names[0])
            await _expect_true_counters(trial)
        return trial.row


async def _expect_true_counters(trial: Trial, timeout_seconds: float = 20.0) -> None:
    """I10: once quiet, and once the reconciler has passed, each counter in Redis is the database's."""
    deadline = time.monotonic() + timeout_seconds
    while (drift := await asyncio.to_thread(_drift, trial)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    trial.expect(not drift, f"counters that are not the database's: {drift}")


def _drift(trial: Trial) -> dict[str, int]:
    """By coupon: its counter less what the database says; none where there is no counter, or the right one."""
    coupons = trial.cluster.snapshot().coupons
    drifts: Counter[str] = Counter()
    for master in trial.cluster.masters:
        with client_of(master) as client:
            for key in client.scan_iter("claim:stock:*"):
                name = key.removeprefix("claim:stock:{").removesuffix("}")
                if name in coupons and (count := client.get(key)) is not None:
                    drifts[name] = int(str(count)) - coupons[name].remaining
    return {name: drift for name, drift in drifts.items() if drift}


async def _note_lost_locks(trial: Trial) -> None:
    """How many locks their holders found gone."""
    lost = [total(await instance.metrics(), "claimsvc_lock_lost_total") for instance in trial.cluster.instances]
    trial.notes.append(f"{sum(lost):.0f} locks were lost while they were held")
