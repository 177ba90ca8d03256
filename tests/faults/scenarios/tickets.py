"""Tickets, and what happens to those who start them: row 20 of the fault table."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from claimsvc.failpoints import AFTER_COMMIT, AFTER_END, AFTER_LEASE, BEFORE_COMMIT, BEFORE_END, EXIT_FAILPOINT
from claimsvc.tickets.dispatching import LEASE_SECONDS
from tests.faults.checks import NOT_RECOVERED
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.deaths import PLENTY
from tests.faults.ticket_checks import by_queue, resumed_seconds
from tests.faults.trial import Trial
from tests.support.instance import Instance
from tests.support.load import Plan
from tests.support.load_tickets import QueuePlan
from tests.support.ticket_log import Tickets

STRATEGIES = ("redlock", "row_lock", "counter")
# Nobody expires, so that every ticket shows whether it was lost.
FAST: Mapping[str, int] = {"rate_per_second": 200, "concurrency": 16, "max_wait_seconds": 3600, "max_length": 500}
_FAST_ALONE: Mapping[str, int] = {**FAST, "rate_per_second": 500, "concurrency": 64, "max_length": 2000}
# Nearly seed 000's own: some expire, and many find it full.
SLOW: Mapping[str, int] = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 2, "max_length": 25}
_TTL_SECONDS = 2.0
# I13: within the lock's TTL and 5 s; what was under way may have to wait for the end of its lease.
RESUMED_SECONDS = _TTL_SECONDS + 5.0
_PAUSED_SECONDS = LEASE_SECONDS + 1.0


class Waiting(Anywhere):
    """Three instances and a queue under each strategy, and a slow one; something happens again and again."""

    fault = "20"
    name: str
    quick = True
    own_servers = False
    durable = False
    instances = 3
    times = 2
    times_in_full = 20
    joins_between = 100
    settings: Mapping[str, str] = {}

    async def run(self, context: Context, rng: random.Random) -> Row:
        settings = {"CLAIMSVC_LOCK_TTL_SECONDS": f"{_TTL_SECONDS}", **self.settings}
        count = 0 if self.own_servers else self.instances
        async with context.trial(
            self, rng, instances=count, settings=settings, own_servers=self.own_servers, durable=self.durable
        ) as trial:
            await self.prepare(trial)
            await trial.cluster.start(self.instances - count, settings)
            queue = _FAST_ALONE if context.alone else FAST
            fast = [await trial.cluster.create_coupon(PLENTY, each, queue=queue) for each in STRATEGIES]
            slow = await trial.cluster.create_coupon(PLENTY, queue=SLOW)
            joins = QueuePlan([*fast, *fast, slow])
            more = self.joins_between * (10 if context.alone else 1)
            async with trial.load(Plan([], queues=joins, waits=1.0, timeout_seconds=15.0)):
                await trial.joined(more)
                for _ in range(self.times_in_full if context.full else self.times):
                    await self.hurt(trial, fast, rng)
                    await trial.joined(rng.randrange(more // 2, more))
                await self.heal(trial)
                healed = datetime.now(UTC)
                await trial.joined(more)
            trial.conclusions.append(lambda found: _conclude(trial, found, fast, healed))
        return trial.row

    async def prepare(self, trial: Trial) -> None:
        """Before the instances are started, where the servers are the trial's own."""

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        """Let it happen once, and say so."""
        raise NotImplementedError

    async def heal(self, trial: Trial) -> None:
        """Mend what `hurt` has left broken: by default, instances that are gone."""
        for each in trial.cluster.instances:
            if not each.running:
                await each.start()


def _conclude(trial: Trial, found: Tickets, coupons: list[str], healed: datetime) -> None:
    """Every queue went on after the fault, by itself and soon."""
    changes = by_queue(found.changes)
    after = {name: resumed_seconds(changes[name], healed) for name in coupons}
    for name, seconds in after.items():
        trial.expect(
            seconds <= RESUMED_SECONDS,
            f"the first ticket of {name} after healing was claimed after {seconds:.1f} s",
            NOT_RECOVERED,
        )
    ends = ", ".join(f"{count} {state}" for state, count in Counter(each.state for each in found.tickets).most_common())
    again = sum(each.tries > 1 for each in found.tickets)
    trial.notes.append(f"{ends}; {again} tried again; went on after {max(after.values()):.1f} s")


class _Dies(Waiting):
    """An instance dies at a point, comes back to die again, and in the end lives."""

    points: tuple[str, ...]

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        victim = trial.cluster.instances[0]
        if victim.running:
            victim.kill()
        failpoint = f"{rng.choice(self.points)}=exit@{rng.randrange(1, 15)}"
        await asyncio.to_thread(victim.launch, {"CLAIMSVC_FAILPOINTS": failpoint})
        status = await victim.ended()
        trial.expect(status == EXIT_FAILPOINT, f"{failpoint}: the instance ended with {status}")
        trial.fired()


@scenario
class DiesAfterLeases(_Dies):
    name = "a dispatcher dies between leases and claims"
    points = (AFTER_LEASE,)


@scenario
class DiesBeforeEnds(_Dies):
    name = "a dispatcher dies between claims of tickets and their commit"
    points = (BEFORE_END,)


@scenario
class DiesAfterEnds(_Dies):
    name = "a dispatcher dies after the commit of tickets' ends"
    points = (AFTER_END,)


@scenario
class DiesAnywhere(_Dies):
    """The commits of those who join, lease, renew and put back are among these."""

    name = "an instance dies before or after any commit, tickets waiting"
    points = (BEFORE_COMMIT, AFTER_COMMIT)


class _Stops(Waiting):
    """An instance stops at a point for longer than its leases last, and then goes on as if nothing had been."""

    points: tuple[str, ...]
    times = 1
    times_in_full = 10

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        victim = rng.choice(trial.cluster.instances)
        await victim.terminate()
        failpoint = f"{rng.choice(self.points)}=stop@{rng.randrange(1, 15)}"
        await asyncio.to_thread(victim.launch, {"CLAIMSVC_FAILPOINTS": failpoint})
        await victim.until_paused(60.0)
        trial.fired()
        await asyncio.sleep(_PAUSED_SECONDS)
        victim.resume()
        await victim.ready()


@scenario
class StopsAfterLeases(_Stops):
    name = "a dispatcher stops between leases and claims, past the leases"
    points = (AFTER_LEASE,)


@scenario
class StopsBeforeEnds(_Stops):
    name = "a dispatcher stops between claims of tickets and their commit, past the leases"
    points = (BEFORE_END,)


@scenario
class StopsAfterEnds(_Stops):
    name, quick = "a dispatcher stops after the commit of tickets' ends, past the leases", False
    points = (AFTER_END,)


@scenario
class KilledWhileTheyWait(Waiting):
    name = "dispatchers are killed and stopped at random moments"
    times, times_in_full = 3, 50

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        victim: Instance = rng.choice(trial.cluster.instances)
        if rng.random() < 0.7:
            victim.kill()
            trial.fired()
            await victim.start()
        else:
            victim.pause()
            trial.fired()
            await asyncio.sleep(rng.uniform(0.5, _PAUSED_SECONDS))
            victim.resume()
