"""Instances that decide for others, and those that hand over: row 19 of the fault table."""

import asyncio
import math
import random
import time

import redis

from claimsvc.failpoints import AFTER_LOCK, BEFORE_COMMIT
from tests.faults.checks import resumed_after_seconds
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.deaths import PLENTY
from tests.faults.trial import Trial
from tests.support.cluster_state import total
from tests.support.instance import SERVICE, Instance
from tests.support.load import Plan
from tests.support.load_tickets import QUEUE, QueuePlan

_UNRELIABLE = ("tests.faults.unreliable_post", "serve")
_SLACK_SECONDS = 2.5
# A user who is told that a claim failed claims again, so that what is decided late would show.
_PLAN_SECONDS = 3.0


class _Combining(Anywhere):
    """Three instances and one hot coupon; something happens to one of them, again and again."""

    fault = "19"
    name: str
    quick = False
    command = SERVICE
    ttl_seconds = 2.0

    async def run(self, context: Context, rng: random.Random) -> Row:
        settings = {"CLAIMSVC_LOCK_TTL_SECONDS": f"{self.ttl_seconds}"}
        async with context.trial(self, rng, instances=3, settings=settings, command=self.command) as trial:
            hot = await trial.cluster.create_coupon(PLENTY)
            scarce = await trial.cluster.create_coupon(300)
            joins = QueuePlan([await trial.cluster.create_coupon(PLENTY, queue=QUEUE)])
            plan = Plan([hot, scarce], [8, 1], timeout_seconds=_PLAN_SECONDS, queues=joins, waits=0.1)
            async with trial.load(plan):
                for _ in range(20 if context.full else 2):
                    await trial.acknowledged(rng.randrange(100, 1000 if context.full else 300))
                    await self.hurt(trial, hot, rng)
                trial.healed()
                await trial.recovered()
            handed = [total(await each.metrics(), "claimsvc_combined_claims_total") for each in trial.cluster.instances]
            trial.notes.append(f"claims combined as seen by each instance at the end: {handed}")
            trial.expect(sum(handed) > 0, "no claim was combined")
        return trial.row

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        """Let it happen once, and mend it."""
        raise NotImplementedError


def _holder(trial: Trial, coupon: str) -> Instance | None:
    """Who holds the lock now."""
    for master in trial.cluster.masters:
        with redis.Redis.from_url(master.url) as client:
            token = client.get(f"claim:coupon:{coupon}")
        assert token is None or isinstance(token, bytes)
        if token is not None:
            pid = token.decode().split(":")[1]
            return next((each for each in trial.cluster.instances if each.running and str(each.pid) == pid), None)
    return None


async def _find_holder(trial: Trial, coupon: str) -> Instance:
    found: list[Instance] = []

    def is_held() -> bool:
        holder = _holder(trial, coupon)
        if holder is not None:
            found.append(holder)
        return bool(found)

    trial.expect(await trial.until(is_held, 30), "nobody held the lock of the hot coupon")
    return found[-1] if found else trial.cluster.instances[0]


@scenario
class TheHolderIsKilled(_Combining):
    name, quick = "the holder of others' batches is killed", True

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        holder = await _find_holder(trial, hot)
        holder.kill()
        began = time.monotonic_ns()
        trial.fired()
        limit = self.ttl_seconds + _SLACK_SECONDS

        def resumed() -> float:
            return resumed_after_seconds(trial.history.invocations, hot, began, holder.name)

        # Not until some are acknowledged: those may have been under way before.
        await trial.until(lambda: resumed() < math.inf, limit)
        trial.expect(resumed() <= limit, f"others went on only after {resumed():.1f} s")
        await holder.start()


@scenario
class TheHolderIsPaused(_Combining):
    name, quick = "the holder of others' batches is paused past its lock", True

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        holder = await _find_holder(trial, hot)
        holder.pause()
        trial.fired()
        await asyncio.sleep(25.0 if trial.full else self.ttl_seconds + 1.0)
        holder.resume()


@scenario
class TheHolderStopsInItsTransaction(_Combining):
    """Both before the fence is committed, and with the lock but no transaction yet."""

    name = "the holder stops with others' batches in its transaction"

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        victim = trial.cluster.instances[rng.randrange(3)]
        await victim.terminate()
        point = rng.choice([AFTER_LOCK, BEFORE_COMMIT])
        # It takes a lock about once a second.
        at = rng.randrange(1, 3 if point == AFTER_LOCK else 20)
        await asyncio.to_thread(victim.launch, {"CLAIMSVC_FAILPOINTS": f"{point}=stop@{at}"})
        await victim.until_paused(60.0)
        trial.fired()
        await asyncio.sleep(self.ttl_seconds + 1.0)
        victim.resume()
        await victim.ready()


@scenario
class AnOriginIsKilled(_Combining):
    name = "an instance that has handed a batch over is killed"

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        holder = await _find_holder(trial, hot)
        origin = rng.choice([each for each in trial.cluster.instances if each is not holder])
        if rng.random() < 0.5:
            origin.kill()
            trial.fired()
            await trial.acknowledged(50)
            await origin.start()
        else:
            origin.pause()
            trial.fired()
            await asyncio.sleep(rng.uniform(0.2, 3.0))
            origin.resume()


@scenario
class MessagesAreUnreliable(_Combining):
    name, quick = "messages between instances are lost, doubled and late", True
    command = _UNRELIABLE

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        await trial.acknowledged(1000 if trial.full else 200)
        trial.fired()


@scenario
class TheMasterForgets(_Combining):
    name = "the master of the messages is cut off and forgets"

    async def hurt(self, trial: Trial, hot: str, rng: random.Random) -> None:
        master = rng.choice(trial.cluster.masters)
        with redis.Redis.from_url(master.url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            client.flushall()
        trial.fired()
