"""Running one scenario: instances, clients and faults on one simulated loop, and then the judgement."""

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from claimsvc.domain import StrategyName
from claimsvc.jobs import reconcile
from tests.simulation import properties
from tests.simulation.border import Border
from tests.simulation.database import SimulatedDatabase
from tests.simulation.instance import Instance, Record
from tests.simulation.loop import SimulatedLoop, SimulationStuckError, context_of
from tests.simulation.masters import LOCK
from tests.simulation.network import MasterHost, Network
from tests.simulation.scenario import ClaimPlan, Fault, Kind, Moment, Scenario, may_strand_locks
from tests.simulation.witness import Witness

_CALLBACK_SECONDS = 0.000_01
# Longer than any claim may take, all pauses and time-outs together.
_LONGEST_RUN_SECONDS = 120.0
# For so long a fault waits for its moment.
_MOMENT_SECONDS = 0.5
_STEP_BACK_SECONDS = 30.0
# The fence keeps batches for a day in truth. Here, they are forgotten while copies of them arrive.
_KEPT_SECONDS, _PURGE_AGAIN_SECONDS = 0.001, 0.01
# What a clock is set back prolongs whatever waits to expire by it.
_JUMP_BACK_SECONDS = 0.5
# Down masters are asked again every 0.2 s, others every second.
_RECOVERY_SECONDS = 1.5


@dataclass
class Run:
    """What came of a scenario. `violations` is empty if every property held."""

    scenario: Scenario
    violations: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    probes: list[Record] = field(default_factory=list)
    fired: list[Kind] = field(default_factory=list)
    hits: list[tuple[Kind, Moment]] = field(default_factory=list)
    combined: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    seconds: float = 0.0


class Simulation:
    """One run of one scenario. Everything that it needs is made here, and forgotten with it."""

    def __init__(self, scenario: Scenario, border: Border) -> None:
        self.scenario = scenario
        self.run = Run(scenario)
        chance = random.Random(scenario.order)
        self.loop = SimulatedLoop(chance, callback_seconds=_CALLBACK_SECONDS)
        self.witness = Witness(self.loop.time, scenario.masters)
        network = Network(self.loop, chance, seconds=scenario.network_seconds, witness=self.witness)
        self.hosts = [MasterHost(number, network) for number in range(scenario.masters)]
        self.database = SimulatedDatabase(network, transaction_seconds=scenario.transaction_seconds)
        if scenario.refused_user is not None:
            self.database.refused_users.add(scenario.refused_user)
        self.instances = [
            Instance(number + 1, scenario, self.loop, self.database) for number in range(scenario.instances)
        ]
        self.killed: set[int] = set()
        self.paused_seconds: defaultdict[int, float] = defaultdict(float)
        self.begun_at = 0.0
        self.border = border
        border.loop, border.chance, border.hosts = self.loop, random.Random(scenario.order + 1), self.hosts
        border.logged = []
        border.tune(scenario)

    def play(self) -> Run:
        """Run it to its end. What goes wrong is among the violations."""
        loop = self.loop
        loop.set_exception_handler(self._note_unhandled)
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(loop.create_task(self._play(), context=loop.world))
        except SimulationStuckError as error:
            self.run.violations.append(f"stuck: {error}")
        self.run.turns, self.run.seconds = loop.turns, loop.now - 1000.0
        self.run.records = [record for instance in self.instances for record in instance.records]
        self.run.violations += properties.violations(self)
        self._count_combined()
        self._take_down()
        return self.run

    async def _play(self) -> None:
        scenario, loop = self.scenario, self.loop
        for coupon in scenario.coupons:
            if coupon.exists:
                await self.database.create_coupon(coupon.name, coupon.amount, coupon.strategy)
        for instance in self.instances:
            loop.create_task(instance.serve(), context=context_of(instance.process))
        for instance in self.instances:
            await instance.ready()
        begun_at = self.begun_at = loop.now
        for fault in scenario.faults:
            loop.in_world(fault.at, self._begin_in_its_moment, fault)
        for restock in scenario.restocks:
            name = scenario.coupons[restock.coupon % len(scenario.coupons)].name
            loop.in_world(restock.at, self.database.restock, name, restock.units)
        clients = [
            (instance.process, loop.create_task(instance.run_client(client), context=context_of(instance.process)))
            for client in scenario.clients
            for instance in [self.instances[client.instance % len(self.instances)]]
        ]
        deadline = begun_at + _LONGEST_RUN_SECONDS
        while True:
            living = [client for process, client in clients if process not in self.killed and not client.done()]
            if not living or loop.now > deadline:
                break
            await asyncio.wait(living, timeout=0.5)
        ends = [fault.at + fault.seconds + _MOMENT_SECONDS * bool(fault.moment) for fault in scenario.faults]
        ends += [restock.at for restock in scenario.restocks]
        await asyncio.sleep(max([0.0, begun_at + max(ends, default=0.0) - loop.now]))
        await self._settle()
        await self._probe()
        for instance in self._living():
            if not instance.is_stopping:
                instance.stop()
        serving = [task for each in self._living() for task in loop.tasks_of(each.process)]
        if serving:
            await asyncio.wait(serving, timeout=_LONGEST_RUN_SECONDS)

    async def _settle(self) -> None:
        """Everything works again, and what was left to expire has."""
        if self.scenario.faults:
            self._heal()
            await asyncio.sleep(_RECOVERY_SECONDS)
        if may_strand_locks(self.scenario):
            jumps = sum(fault.kind is Kind.CLOCK_JUMP for fault in self.scenario.faults)
            await asyncio.sleep(self.scenario.ttl_seconds + jumps * _JUMP_BACK_SECONDS)
        while any(instance.room.count for instance in self._living()) and self.loop.now < self.begun_at + 100:
            await asyncio.sleep(0.1)  # claims whose clients have hung up

    async def _probe(self) -> None:
        """A claim of each coupon at each instance must be answered now, and counters must come right."""
        probing = [
            self.loop.create_task(
                instance.claim(ClaimPlan(number, f"probe-{instance.process}", 0.0)),
                context=context_of(instance.process),
            )
            for instance in self._living()
            if not instance.is_stopping
            for number in range(len(self.scenario.coupons))
        ]
        if probing:
            await asyncio.wait(probing, timeout=_LONGEST_RUN_SECONDS)
            self.run.probes = [probe.result() for probe in probing if probe.done()]
        counted = any(coupon.strategy is StrategyName.COUNTER for coupon in self.scenario.coupons)
        serving = [instance for instance in self._living() if not instance.is_stopping]
        if counted and serving:
            await self.loop.create_task(self._reconcile(serving[0]), context=context_of(serving[0].process))

    async def _reconcile(self, instance: Instance) -> None:
        pages = reconcile(self.database, instance.counters, settle_seconds=0.1, observe=lambda name, units: None)
        async for _ in pages:
            pass

    def _living(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.process not in self.killed]

    def _begin_in_its_moment(self, fault: Fault) -> None:
        """Let the fault happen to an instance that does what its moment is, if there is one soon."""
        if fault.moment is None or self.loop.now > self.begun_at + fault.at + _MOMENT_SECONDS:
            self._begin(fault, self.instances[fault.which % len(self.instances)])
        elif doing := [each for each in self._living() if each.does(fault.moment)]:
            self.run.hits.append((fault.kind, fault.moment))
            self._begin(fault, doing[fault.which % len(doing)])
        else:
            self.loop.in_world(0.0003, self._begin_in_its_moment, fault)

    def _begin(self, fault: Fault, instance: Instance) -> None:
        """Let the fault happen, and plan its end."""
        end = self._faults(instance)[fault.kind](fault)
        if end is not None:
            self.loop.in_world(fault.seconds, end)
        if fault.kind is not Kind.CANCEL_LEADER:
            self.run.fired.append(fault.kind)

    def _faults(self, instance: Instance) -> dict[Kind, Callable[[Fault], Callable[[], None] | None]]:
        return {
            Kind.KILL: lambda fault: self._kill(instance.process, with_its_machine=fault.which % 2 == 1),
            Kind.DRAIN: lambda fault: instance.stop(),
            Kind.CANCEL_LEADER: lambda fault: self._cancel_leader(fault, instance),
            Kind.PAUSE: lambda fault: self._pause(fault, instance.process),
            Kind.DATABASE_CLOCK: lambda fault: setattr(self.database, "clock_offset", -_STEP_BACK_SECONDS),
            Kind.FENCE_PURGED: self._purge,
            Kind.FORGET_SCRIPTS: lambda fault: self._host(fault).redis.forget_scripts(),
            Kind.CLOCK_JUMP: self._jump,
            Kind.MASTER_DOWN: lambda fault: self._go_down(fault, forget=False),
            Kind.MASTER_RESTART: lambda fault: self._go_down(fault, forget=True),
            Kind.MASTER_HANG: self._hang,
            Kind.MASTER_SLOW: lambda fault: self._change(self._host(fault), "slow_seconds", 0.7),
            Kind.MASTER_READ_ONLY: lambda fault: self._change(self._host(fault).redis, "read_only", True),
            Kind.LOST_REPLIES: lambda fault: self._change(self._host(fault), "lose_replies", True),
            Kind.LOST_HINTS: lambda fault: self._change(self._host(fault), "lose_hints", True),
            Kind.LOST_MESSAGES: lambda fault: self._change(self._host(fault), "lose_messages", True),
            Kind.DOUBLED_MESSAGES: lambda fault: self._change(self._host(fault), "double_messages", True),
            Kind.LATE_MESSAGES: lambda fault: self._change(self._host(fault), "late_messages", True),
            Kind.PARTITION: lambda fault: self._cut_off(self._far_host(fault).cut_off, instance.process),
            Kind.DATABASE_CUT_OFF: lambda fault: self._cut_off(self.database.cut_off, instance.process),
            Kind.FOREIGN_HOLDER: self._hold,
            Kind.DATABASE_DOWN: lambda fault: self._change(self.database, "down", True),
            Kind.DATABASE_SLOW: lambda fault: self._change(self.database, "slow_seconds", 1.5),
            Kind.DATABASE_UNCERTAIN: lambda fault: self._change(self.database, "uncertain", True),
        }

    def _host(self, fault: Fault) -> MasterHost:
        return self.hosts[fault.which % len(self.hosts)]

    def _far_host(self, fault: Fault) -> MasterHost:
        return self.hosts[(fault.which // 4) % len(self.hosts)]

    def _change(self, what: object, name: str, value: object) -> Callable[[], None]:
        was = getattr(what, name)
        setattr(what, name, value)
        return lambda: setattr(what, name, type(was)())

    def _kill(self, process: int, *, with_its_machine: bool) -> None:
        self.killed.add(process)
        self.loop.pause(process)
        if not with_its_machine:
            for host in self.hosts:
                host.end_connections_of(process)

    def _cancel_leader(self, fault: Fault, instance: Instance) -> None:
        """As soon as the instance has one, if it gets one soon."""
        if instance.cancel_a_leader(fault.which):
            self.run.fired.append(fault.kind)
        elif self.loop.now < self.begun_at + fault.at + 2 * _MOMENT_SECONDS:
            self.loop.in_world(0.0005, self._cancel_leader, fault, instance)

    def _pause(self, fault: Fault, process: int) -> Callable[[], None]:
        self.paused_seconds[process] += fault.seconds + 1
        self.loop.pause(process)
        return lambda: None if process in self.killed else self.loop.resume(process)

    def _jump(self, fault: Fault) -> None:
        self._host(fault).clock_offset += 60.0 if fault.which % 2 else -_JUMP_BACK_SECONDS

    def _go_down(self, fault: Fault, *, forget: bool) -> Callable[[], None]:
        self._host(fault).go_down(forget=forget)
        return self._host(fault).heal

    def _hang(self, fault: Fault) -> Callable[[], None]:
        self._host(fault).hang()
        return self._host(fault).heal

    @staticmethod
    def _cut_off(who: set[int], process: int) -> Callable[[], None]:
        who.add(process)
        return lambda: who.discard(process)

    def _purge(self, fault: Fault) -> None:
        for number in range(1 + int(fault.seconds / _PURGE_AGAIN_SECONDS)):
            self.loop.in_world(number * _PURGE_AGAIN_SECONDS, self.database.purge_fence, _KEPT_SECONDS)

    def _hold(self, fault: Fault) -> None:
        """Something that is none of the instances takes the lock where it is free, and lets it expire."""
        name = self.scenario.coupons[fault.which % len(self.scenario.coupons)].name
        for host in self.hosts:
            command = ("SET", LOCK + name, "foreign", "PX", max(1, int(fault.seconds * 1000)), "NX")
            reply = host.redis.execute(*command)
            self.witness.saw(host.number, -1, command, reply, host.redis)

    def _heal(self) -> None:
        for host in self.hosts:
            host.heal()
        self.database.heal()
        for instance in self._living():
            self.loop.resume(instance.process)

    def _count_combined(self) -> None:
        combined = self.run.combined
        for what, times in self.witness.messages.items():
            combined[f"messages: {what}"] += times
        for instance in self.instances:
            for role, claims in instance.observed.claims_combined.items():
                combined[f"claims combined as {role}"] += claims
            for found, batches in instance.observed.batches_taken_back.items():
                combined[f"batches taken back, {found}"] += batches
        combined["runs with combined claims"] += bool(combined["claims combined as holder"])
        combined["claims cancelled"] += len(self.database.ended)

    def _note_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        self.run.violations.append(f"unhandled: {context.get('message')} {context.get('exception')!r}")

    def _take_down(self) -> None:
        """End whatever a killed instance, or a stuck one, has left; nothing of this counts any more."""
        loop = self.loop
        loop.set_exception_handler(lambda _, context: None)
        for instance in self.instances:
            loop.resume(instance.process)
        self._heal()
        loop.turns = 0
        for _ in range(20):
            tasks = asyncio.all_tasks(loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            with contextlib.suppress(SimulationStuckError, Exception):
                loop.run_until_complete(loop.create_task(_ended(tasks), context=loop.world))
        asyncio.set_event_loop(None)
        loop.close()


async def _ended(tasks: "set[asyncio.Task[object]]") -> None:
    await asyncio.wait(tasks, timeout=10)
