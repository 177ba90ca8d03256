"""Instances that are asked to stop while they are at work: row 7 of the fault table."""

import random
from collections import Counter

from tests.faults.checks import WRONG_ANSWER
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.deaths import PLENTY
from tests.faults.trial import Trial
from tests.support.load import Plan
from tests.support.load_tickets import QUEUE, QueuePlan

# What a client can know of a request without an answer. These were not accepted: nobody listened, or the connection
# was reset before the request was read, which TCP tells apart from one that was read and then closed.
_NOT_ACCEPTED = ("refused", "reset", "closed-unread")


@scenario
class Terminated(Anywhere):
    fault, name, quick = "7", "SIGTERM under load, rolling restart of 2 instances", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2) as trial:
            hot = await trial.cluster.create_coupon(PLENTY)
            others = [await trial.cluster.create_coupon(5_000, name) for name in ("redlock", "row_lock", "counter")]
            joins = QueuePlan([await trial.cluster.create_coupon(PLENTY, queue=QUEUE)])
            plan = Plan([hot, *others], [3, 1, 1, 1], clients=64, pause_seconds=0.02, queues=joins, waits=0.1)
            async with trial.load(plan):
                for _ in range(10 if context.full else 1):
                    for instance in trial.cluster.instances:
                        await trial.acknowledged(rng.randrange(100, 600))
                        status = await instance.terminate()
                        trial.fired()
                        trial.expect(status == 0, f"{instance.name} ended with {status}: {instance.last_words()}")
                        await instance.start()
                trial.healed()
                await trial.recovered(300)
            _check_none_failed(trial)
        return trial.row


def _check_none_failed(trial: Trial) -> None:
    failed = Counter(
        f"{each.status} {each.problem}"
        for each in trial.history.invocations
        if each.is_unknown and each.problem not in _NOT_ACCEPTED
    )
    for kind, times in failed.items():
        trial.expect(False, f"{times} accepted requests failed with {kind}", WRONG_ANSWER)
    refused = Counter(each.problem for each in trial.history.invocations if each.problem in _NOT_ACCEPTED)
    trial.notes.append("not accepted, and sent again: " + (str(dict(refused)) if refused else "none"))
