"""Instances that die or hang: rows 4 and 5 of the fault table."""

import random

from tests.faults.load import Plan
from tests.faults.scenario import Context, Row, scenario


@scenario
class Killed:
    fault, name, quick = "4", "an instance is killed at random moments", True

    def needs(self) -> str | None:
        return None

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=3, settings={"CLAIMSVC_LOCK_TTL_SECONDS": "2"}) as trial:
            hot = await trial.stage.create_coupon(10_000_000)
            others = [await trial.stage.create_coupon(2_000, strategy) for strategy in ("row_lock", "counter")]
            async with trial.load(Plan([hot, *others], [3, 1, 1])):
                for _ in range(3):
                    await trial.acknowledged(rng.randrange(50, 500))
                    victim = rng.choice(trial.stage.instances)
                    victim.kill()
                    trial.fired()
                    await victim.start()
                trial.healed()
                await trial.recovered()
        return trial.row
