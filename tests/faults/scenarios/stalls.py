"""Instances that hang: rows 5 and 6 of the fault table."""

import asyncio
import random
import time

from claimsvc.failpoints import AFTER_LOCK, BEFORE_COMMIT
from tests.faults.checks import resumed_after_seconds
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.deaths import PLENTY
from tests.faults.trial import Trial
from tests.support.instance import Instance
from tests.support.load import Plan


class _HangsHolding(Anywhere):
    """An instance hangs for longer than its lock lives, and then goes on as if it had it still (I11)."""

    fault: str
    name: str
    quick = True
    point: str

    async def run(self, context: Context, rng: random.Random) -> Row:
        ttl_seconds, idle_seconds = (20.0, 5.0) if context.full else (1.5, 1.0)
        hang_seconds = ttl_seconds + (5.0 if context.full else 1.5)
        settings = {
            "CLAIMSVC_LOCK_TTL_SECONDS": f"{ttl_seconds}",
            "CLAIMSVC_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS": f"{idle_seconds}",
        }
        async with context.trial(self, rng, instances=1, settings=settings) as trial:
            victim = trial.cluster.add(settings)
            hot = await trial.cluster.create_coupon(PLENTY)
            # No other coupon: it would not be known which one's lock the instance hangs with.
            async with trial.load(Plan([hot], timeout_seconds=2.0)):
                for _ in range(2 if context.full else 1):
                    await self._hang(trial, victim, hang_seconds, hot, rng)
                trial.healed()
                await trial.acknowledged(20_000 if context.full else 300)
            violations = [each for each in trial.cluster.instances if each.events("request", status=500)]
            trial.expect(not violations, f"{violations} answered 500")
        return trial.row

    async def _hang(self, trial: Trial, victim: Instance, seconds: float, hot: str, rng: random.Random) -> None:
        # An instance that combines takes a lock about once a second.
        at = rng.randrange(1, 4) if self.point == AFTER_LOCK else rng.randrange(5, 50)
        if victim.running:
            await victim.terminate()
        await asyncio.to_thread(victim.launch, {"CLAIMSVC_FAILPOINTS": f"{self.point}={self.action(seconds)}@{at}"})
        await self.until_hanging(trial, victim)
        began = time.monotonic_ns()
        await asyncio.sleep(seconds)
        await self.end(victim)
        resumed = resumed_after_seconds(trial.history.invocations, hot, began, victim.name)
        # Another held the lock while this one thought that it did: that is what it is about.
        trial.expect(resumed < seconds, f"nobody else claimed the hot coupon within {seconds:g} s")
        trial.fired(resumed < seconds)
        trial.notes.append(f"others went on with the hot coupon after {resumed:.1f} s")
        done = trial.history.acknowledged
        await trial.until(lambda: trial.history.acknowledged > done + 200, 30)

    def action(self, seconds: float) -> str:
        return "stop"

    async def until_hanging(self, trial: Trial, victim: Instance) -> None:
        await victim.until_paused()

    async def end(self, victim: Instance) -> None:
        victim.resume()


@scenario
class PausedOutsideItsTransaction(_HangsHolding):
    fault, name, point = "5", "lock holder paused past the TTL", AFTER_LOCK


@scenario
class PausedInItsTransaction(_HangsHolding):
    fault, name, point = "5", "lock holder paused past the TTL, in its transaction", BEFORE_COMMIT


class _Stalls(_HangsHolding):
    def action(self, seconds: float) -> str:
        return f"stall:{seconds:g}"

    async def until_hanging(self, trial: Trial, victim: Instance) -> None:
        await trial.until(lambda: bool(victim.fired(self.point)), 30)

    async def end(self, victim: Instance) -> None:
        pass


@scenario
class StallsOutsideItsTransaction(_Stalls):
    fault, name, point = "6", "event loop stalled past the TTL", AFTER_LOCK


@scenario
class StallsInItsTransaction(_Stalls):
    fault, name, point = "6", "event loop stalled past the TTL, in its transaction", BEFORE_COMMIT
