"""What a scenario is, what it is run with, and the row that it ends in.

A scenario is a class with the four things of `Scenario`, registered by `@scenario`. Its `run` opens a trial, drives
load, injects its fault, says `fired()` each time that the fault was there, heals it, and says `healed()`:

    @scenario
    class Killed(Anywhere):
        fault, name, quick = "4", "an instance is killed", True

        async def run(self, context: Context, rng: random.Random) -> Row:
            async with context.trial(self, rng, instances=2) as trial:
                coupon = await trial.cluster.create_coupon(1_000_000)
                async with trial.load(Plan([coupon])):
                    await trial.acknowledged(200)
                    trial.cluster.instances[0].kill()
                    trial.fired()
                    trial.healed()
                    await trial.recovered()
            return trial.row
"""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar

from tests.faults.checks import DUPLICATE, FALSELY_REFUSED, LOST, OVERSOLD, PHANTOM, UNEXPECTED, Violation
from tests.faults.ticket_checks import starts
from tests.faults.trial import Trial
from tests.support.cluster import Cluster, open_cluster
from tests.support.history import CLAIM, JOIN, History
from tests.support.instance import SERVICE


@dataclass(frozen=True, slots=True)
class Row:
    """What a run of a scenario came to.

    Args:
        fault: the number in the fault table.
        name: the scenario's.
        seed: it ran with.
        fired: how often the fault was there.
        tried, acknowledged: claims that were asked for, and those that were answered 201, or 202 where they wait.
        unavailable_seconds: the longest stretch under load in which no claim was decided.
        seconds: how long it took.
        violations: what did not hold.
        notes: what else is worth knowing.
        tickets, starts: tickets of queues, and how often claims of them were begun.
    """

    fault: str
    name: str
    seed: int
    fired: int
    tried: int
    acknowledged: int
    unavailable_seconds: float
    seconds: float
    violations: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = ()
    tickets: int = 0
    starts: int = 0

    @classmethod
    def broken(cls, fault: str, name: str, reason: str, seconds: float) -> Self:
        """Of a run that could not be finished."""
        return cls(fault, name, 0, 0, 0, 0, 0.0, seconds, (Violation(UNEXPECTED, reason),))

    def count(self, kind: str) -> int:
        """How many claims or units the violations of that kind are about."""
        return sum(violation.count for violation in self.violations if violation.kind == kind)

    @property
    def lost(self) -> int:
        return self.count(LOST)

    @property
    def oversold(self) -> int:
        return self.count(OVERSOLD) + self.count(DUPLICATE)

    @property
    def phantom(self) -> int:
        return self.count(PHANTOM)

    @property
    def falsely_refused(self) -> int:
        return self.count(FALSELY_REFUSED)

    @property
    def held(self) -> bool:
        """Whether the fault was there and everything held."""
        return self.fired > 0 and not self.violations


class Scenario(Protocol):
    """One way to hurt the service.

    Args:
        fault: the number in the fault table, such as `11`.
        name: a few words that say what happens.
        quick: whether it belongs to the selection that `make test` runs; it must then be over in some seconds.
    """

    fault: str
    name: str
    quick: bool

    def needs(self) -> str | None:
        """What is missing here to run it, as a sentence; None if nothing is."""
        ...

    async def run(self, context: "Context", rng: random.Random) -> Row: ...


class Anywhere:
    """A scenario for which nothing special has to be there."""

    def needs(self) -> str | None:
        return None


# As many as keep every client waiting for others now and then, and leave other tests most of the machine.
_CLAIMS_PER_SECOND_BESIDE_OTHERS = 300.0

_S = TypeVar("_S", bound=type[Scenario])
_registered: list[Scenario] = []


def register(made: Scenario) -> None:
    """Make a scenario one of those that are run."""
    _registered.append(made)


def scenario(kind: _S) -> _S:
    """Register a class without arguments."""
    register(kind())
    return kind


def scenarios() -> list[Scenario]:
    """All of them, by the numbers of their faults."""
    # Importing them registers them.
    import tests.faults.scenarios  # noqa: F401

    return sorted(_registered, key=lambda each: (int(each.fault.split("-")[0]), each.name))


@dataclass(slots=True)
class Context:
    """What every scenario is run with.

    Args:
        full: whether to take the lengths of production (times to live, above all) and more repetitions, and not be over
            in some seconds.
        kept: where the history and the logs of a trial go that did not hold.
        report: is told, in a few words, what happens.
        alone: whether nothing else uses the machine meanwhile, so that latencies can be compared, and claims may come
            as fast as they get answers.
    """

    full: bool
    kept: Path
    report: Callable[[str], None] = lambda _: None
    alone: bool = True
    _clusters: dict[tuple[int, bool], Cluster] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @asynccontextmanager
    async def trial(
        self,
        of: Scenario,
        rng: random.Random,
        *,
        instances: int = 1,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] = SERVICE,
        masters: int = 3,
        durable: bool = False,
        own_servers: bool = False,
    ) -> AsyncIterator[Trial]:
        """A cluster with an empty database and so many ready instances; on leaving, wait for quiet and check all.

        Args:
            of: the scenario.
            rng: the trial's load draws from it.
            instances: how many to start.
            settings: variables of all of them.
            command: what an instance runs.
            masters: how many.
            durable: needed where PostgreSQL or a master crashes.
            own_servers: start servers for this trial alone. Others are lent the same ones again and again, and leave
                them running and answering.
        """
        seed = rng.getrandbits(32)
        with ExitStack() as stack:
            if own_servers:
                cluster = await asyncio.to_thread(stack.enter_context, open_cluster(masters=masters, durable=durable))
            else:
                cluster = await self._lend(masters, durable)
                await asyncio.to_thread(cluster.clear)
            path = cluster.folder / f"history-{of.fault}-{seed}.ndjson"
            history = stack.enter_context(History(path))
            per_second = None if self.alone else _CLAIMS_PER_SECOND_BESIDE_OTHERS
            trial = Trial(cluster, history, random.Random(seed), full=self.full, per_second=per_second)
            began = time.monotonic()
            # What the scenario has added to the cluster is there until the instances are gone.
            async with trial.resources:
                try:
                    await cluster.start(instances, settings, command)
                    yield trial
                    await trial.finish()
                except BaseException:
                    self._keep(cluster, history, f"{of.fault}-{seed}")
                    raise
                if trial.violations:
                    trial.notes.append(f"kept in {self._keep(cluster, history, f'{of.fault}-{seed}')}")
                trial.row = Row(
                    of.fault,
                    of.name,
                    seed,
                    trial.times_fired,
                    sum(each.operation in (CLAIM, JOIN) for each in history.invocations),
                    history.acknowledged + history.joined,
                    trial.unavailable_seconds(),
                    time.monotonic() - began,
                    tuple(trial.violations),
                    tuple(trial.notes),
                    len(trial.tickets.tickets) if trial.tickets is not None else 0,
                    len(starts(trial.tickets.changes)) if trial.tickets is not None else 0,
                )
                await asyncio.to_thread(cluster.close_instances)
            path.unlink(missing_ok=True)

    async def _lend(self, masters: int, durable: bool) -> Cluster:
        key = (masters, durable)
        if key not in self._clusters:
            opening = open_cluster(masters=masters, durable=durable)
            # In a thread, because migrations run an event loop of their own.
            self._clusters[key] = await asyncio.to_thread(self._stack.enter_context, opening)
        return self._clusters[key]

    def _keep(self, cluster: Cluster, history: History, name: str) -> Path:
        history.flush()
        folder = self.kept / name
        folder.mkdir(parents=True, exist_ok=True)
        for instance in cluster.instances:
            shutil.copy(instance.log, folder / f"{instance.name}.log")
        if history.path is not None:
            shutil.copy(history.path, folder / "history.ndjson")
        return folder

    def close(self) -> None:
        self._stack.close()
        self._clusters.clear()


@contextmanager
def open_context(
    *, full: bool, kept: Path, report: Callable[[str], None] = lambda _: None, alone: bool = True
) -> Iterator[Context]:
    """A context; the servers that it has lent are ended on leaving."""
    context = Context(full, kept, report, alone)
    try:
        yield context
    finally:
        context.close()
