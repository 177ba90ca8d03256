"""What clients do: hang up, come all at once, ask the same again. Rows 8, 9, 10 and 17 of the fault table."""

import asyncio
import random
from collections import Counter
from contextlib import ExitStack

import psycopg
import redis

from stress_test.connections import allow_open_files
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.deaths import PLENTY
from tests.faults.trial import Trial
from tests.support.history import ALREADY_CLAIMED, SOLD_OUT, Invocation
from tests.support.load import Client, Plan


@scenario
class HangUp(Anywhere):
    fault, name, quick = "8", "clients hang up mid-claim", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2) as trial:
            coupons = [await trial.cluster.create_coupon(PLENTY, name) for name in ("redlock", "row_lock", "counter")]
            coupons += [await trial.cluster.create_coupon(500, name) for name in ("redlock", "row_lock", "counter")]
            async with trial.load(Plan(coupons, hang_ups=0.5, hang_up_seconds=0.03)):
                await trial.acknowledged(30_000 if context.full else 1_000)
                trial.healed()
                await trial.recovered()
            trial.fired(sum(each.problem == "hung-up" for each in trial.history.invocations))
        return trial.row


@scenario
class GiveUpWaiting(Anywhere):
    """Callers are gone while their claims wait, first for the lock and then in the transaction.

    That a task is cancelled at each await of the path in turn is tried in the process itself, by the crash-point sweep.
    """

    fault, name, quick = "9", "callers give up while acquiring, and while committing", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2) as trial:
            coupons = [await trial.cluster.create_coupon(100, name) for name in ("redlock", "row_lock", "counter")]
            for number in range(20 if context.full else 1):
                with ExitStack() as held:
                    for master in trial.cluster.masters:
                        client = held.enter_context(redis.Redis.from_url(master.url))
                        client.set(f"claim:coupon:{coupons[0]}", "somebody else's", px=20_000)
                    await self._give_up(trial, coupons, f"acquiring-{number}", rng)
                    for master in trial.cluster.masters:
                        held.enter_context(redis.Redis.from_url(master.url)).delete(f"claim:coupon:{coupons[0]}")
                with psycopg.connect(trial.cluster.database_url) as obstacle:
                    obstacle.execute("SELECT FROM coupons FOR UPDATE")
                    await self._give_up(trial, coupons, f"committing-{number}", rng)
            trial.healed()
            async with trial.load(Plan(coupons, clients=16)):
                sold_out = await trial.until(lambda: self._all_sold_out(trial, coupons), 20)
                trial.expect(sold_out, "what they gave up was not sold to others")
        return trial.row

    def _all_sold_out(self, trial: Trial, coupons: list[str]) -> bool:
        return {each.coupon for each in trial.history.invocations if each.problem == SOLD_OUT} == set(coupons)

    async def _give_up(self, trial: Trial, coupons: list[str], name: str, rng: random.Random) -> None:
        async def one(number: int) -> Invocation:
            client = Client(f"{name}-{number}", trial.cluster.instances, trial.history, number)
            return await client.claim(
                coupons[number % len(coupons)], f"{name}-{number}", hang_up_seconds=rng.uniform(0.05, 0.5)
            )

        ends = await asyncio.gather(*(one(number) for number in range(24)))
        trial.fired(sum(each.problem == "hung-up" for each in ends))


@scenario
class OpeningHerd(Anywhere):
    fault, name, quick = "10", "1000 clients at once", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2) as trial:
            allow_open_files(1_000)
            clients = [Client(f"c{number}", trial.cluster.instances, trial.history, number) for number in range(1_000)]
            for start in range(0, 1_000, 100):
                await asyncio.gather(*(client.open() for client in clients[start : start + 100]))
            for turn in range(15 if context.full else 3):
                strategy = ("redlock", "row_lock", "counter")[turn % 3]
                coupon, amount = await trial.cluster.create_coupon(100, strategy), 100
                ends = await asyncio.gather(*(self._insist(client, coupon, trial) for client in clients))
                found = Counter(f"{each.status} {each.problem}".strip() for each in ends)
                trial.expect(
                    found == {"201": amount, f"409 {SOLD_OUT}": 1_000 - amount},
                    f"{strategy}: the herd got {dict(found)}",
                )
                trial.fired()
            for client in clients:
                client.close()
            busy = Counter(each.problem for each in trial.history.invocations if each.is_unknown)
            trial.notes.append(f"asked again: {dict(busy) or 'none'}")
        return trial.row

    async def _insist(self, client: Client, coupon: str, trial: Trial) -> Invocation:
        while not (made := await client.claim(coupon, client.name)).is_definite:
            await asyncio.sleep(0.2)
        return made


@scenario
class TheSameAgain(Anywhere):
    """There are no idempotency keys: a user holds at most one claim of a coupon, so the pair of them is the key."""

    fault, name, quick = "17", "the same request 50 times at once", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2) as trial:
            coupons = [await trial.cluster.create_coupon(PLENTY, name) for name in ("redlock", "row_lock", "counter")]
            last = [await trial.cluster.create_coupon(1, name) for name in ("redlock", "row_lock", "counter")]
            clients = [Client(f"c{number}", trial.cluster.instances, trial.history, number) for number in range(50)]
            for number, coupon in enumerate([*coupons * (300 if context.full else 10), *last]):
                ends = await asyncio.gather(*(self._insist(client, coupon, f"user-{number}") for client in clients))
                made = [each for each in ends if each.status == 201]
                told = [each for each in ends if each.problem == ALREADY_CLAIMED]
                claims = {each.claim for each in ends}
                trial.expect(
                    (len(made), len(told), len(claims)) == (1, 49, 1),
                    f"{coupon}: {len(made)} x 201, {len(told)} x {ALREADY_CLAIMED}, {len(claims)} claims",
                )
                trial.fired()
            for client in clients:
                client.close()
        return trial.row

    async def _insist(self, client: Client, coupon: str, user: str) -> Invocation:
        while not (made := await client.claim(coupon, user)).is_definite:
            await asyncio.sleep(0.1)
        return made
