"""The whole sweep: every strategy, every scenario, every boundary and every await, in every mode."""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import psycopg
import structlog

from claimsvc import bootstrap
from claimsvc.domain import StrategyName
from claimsvc.embedded import PostgresServer, embedded_services, temporary_state_dir
from claimsvc.tickets import dispatching
from tests.faults.sweep.boundaries import Boundary, Mode
from tests.faults.sweep.claims import (
    BATCH,
    CANCELLED,
    CONFIRMED,
    GROUP,
    HANDED,
    HOLDS,
    JOINED,
    JOINED_KEYED,
    KEYED,
    LEFT,
    RECEIVED,
    SALE,
    SHORT_SALE,
    SINGLE,
    STARTED,
    WAITING,
    Scenario,
)
from tests.faults.sweep.lane import Lane, Point, Result, open_lane
from tests.faults.sweep.leases import SHORT_LEASE_SECONDS
from tests.faults.sweep.service import Zygote, open_zygote
from tests.faults.sweep.work import Await, AwaitMode

AnyMode = Mode | AwaitMode

DEATHS: tuple[AnyMode, ...] = tuple(mode for mode in Mode if mode.kills)
BREAKS: tuple[AnyMode, ...] = (Mode.ERROR, Mode.RESET, Mode.LOST_REPLY)
LATE: tuple[AnyMode, ...] = (Mode.LATE_REQUEST, Mode.LATE_REPLY)
CANCELS: tuple[AnyMode, ...] = tuple(mode for mode in Mode if mode.cancels)
AWAITS: tuple[AnyMode, ...] = tuple(AwaitMode)
# Modes that go into one lane. Those that wait for time-outs come first, for they take longest.
FAMILIES = (LATE[:1], LATE[1:], BREAKS, CANCELS, DEATHS[:1], DEATHS[1:], AWAITS[:1], AWAITS[1:])
# A lane costs several runs without a fault, which do not pay where only a few points are taken.
FAMILIES_OF_A_CHOICE = (LATE + BREAKS + CANCELS + AWAITS, DEATHS)

SCENARIOS_OF: dict[str, Sequence[Scenario]] = {
    StrategyName.REDLOCK: (
        *(SINGLE, BATCH, GROUP, WAITING, SALE, SHORT_SALE, HOLDS, KEYED, CONFIRMED, CANCELLED, HANDED, RECEIVED),
        *(JOINED, JOINED_KEYED, STARTED, LEFT),
    ),
    StrategyName.ROW_LOCK: (SINGLE, BATCH, GROUP, SALE, SHORT_SALE, HOLDS, KEYED, STARTED),
    StrategyName.COUNTER: (SINGLE, BATCH, GROUP, HOLDS, KEYED, CONFIRMED, CANCELLED, STARTED),
}

# Each has up to seven connections to PostgreSQL, which takes a hundred.
_LANES_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What to sweep.

    Args:
        masters: how many of the masters the service is given.
        modes: which ways to fail.
        share: how much of the points to take, chosen at random by `seed`; 1.0 is all of them.
    """

    strategies: Sequence[str] = tuple(StrategyName)
    scenarios: Sequence[str] = ()
    masters: int = 3
    modes: Sequence[AnyMode] = (*Mode, *AwaitMode)
    share: float = 1.0
    seed: int = 0


Report = Callable[[Result], None]


def run_sweep(plan: Plan, report: Report = lambda _: None) -> list[Result]:
    """Start PostgreSQL and masters, sweep as planned, and stop them.

    Args:
        report: told each result as it comes.
    """
    with (
        temporary_state_dir() as folder,
        embedded_services(folder, masters=plan.masters, durable=False) as services,
    ):
        assert services.postgres is not None
        bootstrap.migrate(services.database_url)
        template = services.database_url.rsplit("/", 1)[1]
        return asyncio.run(sweep(plan, services.postgres, template, services.redis_urls, report))


async def sweep(
    plan: Plan,
    postgres: PostgresServer,
    template: str,
    redis_urls: Sequence[str],
    report: Report = lambda _: None,
) -> list[Result]:
    """Sweep on servers that run already; `template` is a database with the schema and nothing else."""
    places = asyncio.Semaphore(_LANES_AT_ONCE)
    results: list[Result] = []

    async with AsyncExitStack() as stack:
        stack.enter_context(_quiet_logs())
        # As with `sweep_seconds` of the services: what comes by the clock, twice a second, would be in every run. Once
        # for all of them: of patches that overlap, the last one to end puts back what an earlier one had put there.
        stack.enter_context(patch.object(bootstrap, "HEED_SECONDS", 3600.0))
        # As in the zygote's processes: a lease that nobody ends is no longer than a lock.
        stack.enter_context(patch.object(dispatching, "LEASE_SECONDS", SHORT_LEASE_SECONDS))
        stack.enter_context(patch.object(dispatching, "_RENEW_SECONDS", SHORT_LEASE_SECONDS / 3))
        zygote: Zygote | None = None
        if set(plan.modes) & set(DEATHS):
            zygote = await stack.enter_async_context(open_zygote())

        async def run(strategy: str, scenario: Scenario, modes: Sequence[AnyMode]) -> None:
            async with places, _database(postgres, template) as database_url:
                needs = zygote if set(modes) & set(DEATHS) else None
                masters = tuple(redis_urls)[: plan.masters]
                async with open_lane(database_url, masters, strategy, scenario, needs) as lane:
                    points = await _points(lane, modes)
                    chance = random.Random(f"{plan.seed} {strategy} {scenario.name} {modes}")
                    for point in chance.sample(points, round(len(points) * plan.share)) if plan.share < 1 else points:
                        result = await lane.disturb(point)
                        results.append(result)
                        report(result)

        async with asyncio.TaskGroup() as group:
            for strategy, scenario, modes in _lanes(plan):
                group.create_task(run(strategy, scenario, modes))
    return results


def _lanes(plan: Plan) -> Iterator[tuple[str, Scenario, Sequence[AnyMode]]]:
    for family in FAMILIES if plan.share == 1.0 else FAMILIES_OF_A_CHOICE:
        modes = [mode for mode in family if mode in plan.modes]
        for strategy in plan.strategies:
            for scenario in SCENARIOS_OF[strategy]:
                if modes and (not plan.scenarios or scenario.name in plan.scenarios):
                    yield strategy, scenario, modes


async def _points(lane: Lane, modes: Iterable[AnyMode]) -> list[Point]:
    """Every place that a mode can be applied to, as counted in runs without a fault."""
    boundaries, awaits = await lane.survey()
    points: list[Point] = []
    for mode in modes:
        places: Sequence[Boundary | Await] = awaits if isinstance(mode, AwaitMode) else boundaries
        # HTTP has no answer of its own to a request that the service has not seen.
        points += [Point(place, mode) for place in places if mode is not Mode.ERROR or not _is_the_clients(place)]
    return points


def _is_the_clients(place: Boundary | Await) -> bool:
    return isinstance(place, Boundary) and place.server == "client"


@asynccontextmanager
async def _database(postgres: PostgresServer, template: str) -> AsyncIterator[str]:
    """A database of its own."""
    name = f"sweep_{secrets.token_hex(8)}"
    async with await psycopg.AsyncConnection.connect(postgres.url_of("postgres"), autocommit=True) as administrator:
        await administrator.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
        try:
            yield postgres.url_of(name)
        finally:
            await administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Faults are what is wanted here; the service's words about each of them are not."""
    was = structlog.get_config()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**was)
        logging.disable(logging.NOTSET)
