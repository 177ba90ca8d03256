"""Instances that die: rows 1 to 4 of the fault table."""

import asyncio
import math
import random
import time

from claimsvc.failpoints import AFTER_COMMIT, AFTER_LOCK, BEFORE_COMMIT, BEFORE_REPLY, EXIT_FAILPOINT
from tests.faults.checks import resumed_after_seconds
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.trial import Trial
from tests.support.history import ALREADY_CLAIMED
from tests.support.instance import Instance
from tests.support.load import Client, Plan
from tests.support.load_tickets import QUEUE, QueuePlan

PLENTY = 10_000_000
# A waiting instance tries again every 0.5 s; the rest is for a machine that does other things too.
_SLACK_SECONDS = 1.5


class _DiesAtAPoint(Anywhere):
    """First one claim alone, which says exactly what is left behind; then deaths under load."""

    fault: str
    name: str
    quick = True
    points: tuple[str, ...]
    is_committed: bool

    async def run(self, context: Context, rng: random.Random) -> Row:
        ttl = "20" if context.full else "1.5"
        async with context.trial(self, rng, instances=1, settings={"CLAIMSVC_LOCK_TTL_SECONDS": ttl}) as trial:
            victim = trial.cluster.add({"CLAIMSVC_LOCK_TTL_SECONDS": ttl})
            await self._die_alone(trial, victim, float(ttl))
            coupons = [await trial.cluster.create_coupon(PLENTY, "redlock") for _ in range(2)]
            coupons += [await trial.cluster.create_coupon(1_000, name) for name in ("redlock", "row_lock", "counter")]
            async with trial.load(Plan(coupons)):
                for number in range(4 if context.full else 1):
                    point = self.points[number % len(self.points)]
                    # An instance that combines takes a lock about once a second.
                    await _die(trial, victim, f"{point}=exit@{rng.randrange(1, 5 if point == AFTER_LOCK else 100)}")
                await victim.start()
                trial.healed()
                await trial.acknowledged(20_000 if context.full else 300)
        return trial.row

    async def _die_alone(self, trial: Trial, victim: Instance, ttl_seconds: float) -> None:
        survivor = trial.cluster.instances[0]
        coupon = await trial.cluster.create_coupon(5)
        await victim.start({"CLAIMSVC_FAILPOINTS": f"{self.points[0]}=exit@1"})
        asked = await Client("first", [victim], trial.history).claim(coupon, "ada")
        trial.expect(await victim.ended() == EXIT_FAILPOINT, "the instance did not die of its failpoint")
        trial.fired()
        died = time.monotonic()
        trial.expect(asked.status == 0, f"a claim whose instance died was answered {asked.status}")
        seen = await trial.cluster.look()
        trial.expect(bool(seen.locks), "the lock of an instance that died was not left behind")
        rows = [row for row in trial.cluster.snapshot().claims if row.coupon == coupon]
        trial.expect(len(rows) == self.is_committed, f"{len(rows)} claims were committed")
        client = Client("second", [survivor], trial.history)
        while not (again := await client.claim(coupon, "ada")).is_definite:
            await asyncio.sleep(0.05)
        client.close()
        seconds = time.monotonic() - died
        trial.notes.append(f"free again after {seconds:.1f} s of {ttl_seconds:g}")
        trial.expect(seconds <= ttl_seconds + _SLACK_SECONDS, f"the coupon was free only after {seconds:.1f} s")
        if self.is_committed:
            found = again.problem == ALREADY_CLAIMED and again.claim == rows[0].id
            trial.expect(found, f"asking again did not find the claim, but {again.status} {again.problem}")
        else:
            trial.expect(again.status == 201, f"asking again got {again.status} {again.problem}")


async def _die(trial: Trial, victim: Instance, failpoint: str) -> None:
    # It may be dead before anybody sees that it was ready.
    await asyncio.to_thread(victim.launch, {"CLAIMSVC_FAILPOINTS": failpoint})
    status = await victim.ended()
    trial.expect(status == EXIT_FAILPOINT, f"{failpoint}: the instance ended with {status}")
    trial.fired()


@scenario
class DiesHoldingTheLock(_DiesAtAPoint):
    fault, name = "1", "dies after taking the lock"
    points, is_committed = (AFTER_LOCK,), False


@scenario
class DiesInTheTransaction(_DiesAtAPoint):
    # Insert and update are one statement: what is between them is what is between it and the commit.
    fault, name = "2", "dies between writing and COMMIT"
    points, is_committed = (BEFORE_COMMIT,), False


@scenario
class DiesBeforeTheReply(_DiesAtAPoint):
    fault, name = "3", "dies between COMMIT and reply"
    points, is_committed = (AFTER_COMMIT, BEFORE_REPLY), True


@scenario
class Killed(Anywhere):
    fault, name, quick = "4", "killed at random moments", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        ttl_seconds = 2.0
        settings = {"CLAIMSVC_LOCK_TTL_SECONDS": f"{ttl_seconds}"}
        deaths: list[tuple[int, str]] = []
        async with context.trial(self, rng, instances=3, settings=settings) as trial:
            hot = await trial.cluster.create_coupon(PLENTY)
            others = [await trial.cluster.create_coupon(5_000, name) for name in ("redlock", "row_lock", "counter")]
            queued = await trial.cluster.create_coupon(PLENTY, queue=QUEUE)
            async with trial.load(Plan([hot, *others], [6, 1, 1, 1], queues=QueuePlan([queued]), waits=0.1)):
                for _ in range(50 if context.full else 3):
                    await trial.acknowledged(rng.randrange(1, 1500 if context.full else 300))
                    victim = rng.choice(trial.cluster.instances)
                    victim.kill()
                    deaths.append((time.monotonic_ns(), victim.name))
                    trial.fired()
                    await victim.start()
                trial.healed()
                await trial.recovered()
                # Whoever died last may have held the hot coupon's lock.
                await trial.until(
                    lambda: resumed_after_seconds(trial.history.invocations, hot, *deaths[-1]) < math.inf,
                    3 * ttl_seconds,
                )
            longest = max(resumed_after_seconds(trial.history.invocations, hot, *death) for death in deaths)
            trial.notes.append(f"others went on with the hot coupon after {longest:.1f} s at most")
            trial.expect(
                longest <= ttl_seconds + _SLACK_SECONDS, f"others went on with the hot coupon after {longest:.1f} s"
            )
        return trial.row
