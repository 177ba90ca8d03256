"""Tickets, and what happens to those who start them: row 20 of the fault table."""

import asyncio
import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import Any

import psycopg

from claimsvc.domain import QueueStop
from claimsvc.failpoints import AFTER_COMMIT, AFTER_END, AFTER_LEASE, BEFORE_COMMIT, BEFORE_END, EXIT_FAILPOINT
from claimsvc.tickets.dispatching import LEASE_SECONDS
from tests.faults.checks import LOST, NOT_RECOVERED
from tests.faults.scenario import Anywhere, Context, Row, scenario
from tests.faults.scenarios.deaths import PLENTY
from tests.faults.ticket_checks import by_queue, resumed_seconds
from tests.faults.trial import Trial
from tests.support.admin import ADMIN
from tests.support.injectors import clock
from tests.support.injectors.masters import HUNG, REFUSED
from tests.support.injectors.postgres import number, stop_immediately
from tests.support.instance import Instance
from tests.support.load import Plan
from tests.support.load_tickets import QUEUE, QueuePlan
from tests.support.ticket_log import Tickets

STRATEGIES = ("redlock", "row_lock", "counter")
_QUEUE_ALONE: Mapping[str, int] = {**QUEUE, "rate_per_second": 500, "concurrency": 64, "max_length": 2000}
# Nearly seed 000's own: some expire, and many find it full.
SLOW: Mapping[str, int] = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 2, "max_length": 25}
_TTL_SECONDS = 2.0
# I13: within the lock's TTL and 5 s; what was under way may have to wait for the end of its lease.
RESUMED_SECONDS = _TTL_SECONDS + 5.0
_JUMP_SECONDS = 60.0
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::bigint"
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
    joins_between = 50
    settings: Mapping[str, str] = MappingProxyType({})

    async def run(self, context: Context, rng: random.Random) -> Row:
        settings = {"CLAIMSVC_LOCK_TTL_SECONDS": f"{_TTL_SECONDS}", **self.settings}
        count = 0 if self.own_servers else self.instances
        async with context.trial(
            self, rng, instances=count, settings=settings, own_servers=self.own_servers, durable=self.durable
        ) as trial:
            await self.prepare(trial)
            await trial.cluster.start(self.instances - count, settings)
            queue = _QUEUE_ALONE if context.alone else QUEUE
            fast = [await trial.cluster.create_coupon(PLENTY, each, queue=queue) for each in STRATEGIES]
            slow = await trial.cluster.create_coupon(PLENTY, queue=SLOW)
            joins = QueuePlan([*fast, *fast, slow])
            more = self.joins_between * (20 if context.alone else 1)
            async with trial.load(Plan([], queues=joins, waits=1.0, timeout_seconds=15.0)):
                await trial.joined(more)
                for _ in range(self.times_in_full if context.full else self.times if context.alone else 1):
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

    name, quick = "an instance dies before or after any commit, tickets waiting", False
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
    name, quick = "a dispatcher stops between leases and claims, past the leases", False
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
    name, quick = "dispatchers are killed and stopped at random moments", False
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


@scenario
class PostgresRestarts(Waiting):
    name = "PostgreSQL is stopped at once and started again, tickets waiting"
    own_servers = durable = True
    times, times_in_full = 1, 5

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        postgres = trial.cluster.postgres
        await asyncio.to_thread(stop_immediately, postgres)
        trial.fired()
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        await asyncio.to_thread(postgres.start)


@scenario
class PostgresClockJumps(Waiting):
    """Starts are counted by a clock that is set forward or back by a minute, and set right again."""

    name = "PostgreSQL's clock jumps by a minute, tickets waiting"
    own_servers = True
    times, times_in_full = 1, 15
    _clock: clock.JumpingClock

    def needs(self) -> str | None:
        return clock.why_not()

    async def prepare(self, trial: Trial) -> None:
        self._clock = await trial.use(clock.jumping_clock_of_postgres(trial.cluster.postgres, trial.cluster.folder))
        trial.clock_offsets = [_JUMP_SECONDS, -_JUMP_SECONDS]

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        seconds = trial.clock_offsets[trial.times_fired % 2]
        for seconds in trial.clock_offsets:
            self._clock.jump_to(seconds)
            await asyncio.sleep(rng.uniform(1.0, 2.0))
            await trial.joined(self.joins_between)
            off = await asyncio.to_thread(number, trial.cluster.database_url, _CLOCK) - time.time()
            trial.fired(abs(off - seconds) < _JUMP_SECONDS / 2)
            self._clock.jump_to(0)
            await asyncio.sleep(rng.uniform(0.5, 1.5))


@scenario
class MostMastersFail(Waiting):
    """The pace of locked coupons stops, which the tickets say, and goes on by itself; nothing is lost."""

    name = "most masters are away and come back, tickets waiting"
    own_servers = True
    times, times_in_full = 1, 10
    settings = MappingProxyType({"CLAIMSVC_REDIS_TIMEOUT_SECONDS": "0.5"})

    async def hurt(self, trial: Trial, coupons: list[str], rng: random.Random) -> None:
        victims = trial.cluster.masters[:2]
        away = rng.choice((REFUSED, HUNG))
        for each in victims:
            await asyncio.to_thread(away.inflict, each)
        trial.fired()
        seen = len(trial.history.invocations)

        def is_told() -> bool:
            return any(
                each.stopped == QueueStop.UNAVAILABLE and each.coupon == coupons[0]
                for each in islice(trial.history.invocations, seen, None)
            )

        trial.expect(await trial.until(is_told, 15.0), "no ticket has said that its queue is stopped")
        for each in victims:
            await asyncio.to_thread(away.heal, each)


_POISON = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'poisoned' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER poison BEFORE INSERT ON user_claims FOR EACH ROW
WHEN (NEW.coupon_name = '{coupon}') EXECUTE FUNCTION poison()
"""


@scenario
class NeverDecided(Anywhere):
    """What fails again and again is a dead letter in the end; requeued when the cause is gone, it is claimed."""

    fault, name, quick = "20", "claims of tickets that always fail are dead letters", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=2, command=("tests.faults.impatient", "serve")) as trial:
            poisoned = await trial.cluster.create_coupon(PLENTY, "row_lock", queue=QUEUE)
            healthy = await trial.cluster.create_coupon(PLENTY, queue=QUEUE)
            with psycopg.connect(trial.cluster.database_url, autocommit=True) as session:
                session.execute(_POISON.format(coupon=poisoned).encode())
                trial.fired()
                joins = QueuePlan([poisoned, healthy], repeats=0.0)  # a second ticket would replace a dead one
                async with trial.load(Plan([], queues=joins, waits=1.0, per_second=100.0)):
                    await trial.joined(200)
                dead = await dead_letters(trial, poisoned)
                session.execute("DROP TRIGGER poison ON user_claims")
            for number_, ticket in enumerate(dead):
                instance = trial.cluster.instances[number_ % 2]
                await asyncio.to_thread(requeue, instance, ticket)
            trial.notes.append(f"{len(dead)} dead letters, all requeued")
            trial.conclusions.append(lambda found: all_are_claimed(trial, found))
        return trial.row


async def dead_letters(trial: Trial, coupon: str) -> list[str]:
    """The ids of all tickets of a coupon, once each of them has ended, as the list of dead letters has them."""
    await trial.all_have_ended()
    listed = await asyncio.to_thread(list_dead_letters, trial.cluster.instances[0])
    with psycopg.connect(trial.cluster.database_url) as session:
        rows = session.execute(
            "SELECT id::text FROM tickets WHERE coupon_name = %s AND state <> 'left'", [coupon]
        ).fetchall()
    trial.expect(bool(listed), "there is no dead letter")
    trial.expect(
        sorted(listed) == sorted(ticket for (ticket,) in rows),
        f"{len(listed)} dead letters are listed of {len(rows)} tickets that could not be claimed",
        LOST,
    )
    return listed


def list_dead_letters(instance: Instance) -> list[str]:
    """The ids of all dead letters, as an operator lists them."""
    found: list[str] = []
    cursor = ""
    while True:
        page = _ask(instance, "GET", f"/api/dead-letters?limit=100{cursor}")
        found += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def requeue(instance: Instance, ticket: str) -> None:
    """Try a dead letter again, as an operator does."""
    _ask(instance, "POST", f"/api/dead-letters/{ticket}/requeue", {"reason": "the cause is gone"})


def _ask(instance: Instance, method: str, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{instance.url}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **ADMIN},
    )
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def all_are_claimed(trial: Trial, found: Tickets) -> None:
    """Whoever did not leave has a claim."""
    ends = Counter(each.state for each in found.tickets)
    trial.expect(not ends.keys() - {"claimed", "left"}, f"tickets ended as {dict(ends)}", LOST)
