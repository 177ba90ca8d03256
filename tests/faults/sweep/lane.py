"""One service, one strategy, one scenario: run cleanly to learn the boundaries, then with a fault at each of them."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count

import psycopg

from claimsvc import bootstrap
from claimsvc.config import Settings
from tests.faults.sweep.boundaries import Boundary, Mode
from tests.faults.sweep.claims import (
    Act,
    Answer,
    Claimant,
    Request,
    Role,
    Scenario,
    ask_all,
    claim_request,
    claimants,
    get,
    partners_claimants,
)
from tests.faults.sweep.invariants import (
    is_decided,
    violations_of_answers_again,
    violations_of_ends,
    violations_of_first_answers,
    violations_of_tickets,
    violations_of_transitions,
    violations_on_record,
)
from tests.faults.sweep.partner import Partner, open_partner
from tests.faults.sweep.records import Records, Stock, open_records
from tests.faults.sweep.service import (
    ANSWER_SECONDS,
    CLIENT_PATIENCE_SECONDS,
    LOCK_TTL_SECONDS,
    Stage,
    Zygote,
    open_stage,
)
from tests.faults.sweep.work import Await, AwaitMode
from tests.support.waiting import comes_about

# I13: once healed, claims succeed again within this.
_HEALED_SECONDS = LOCK_TTL_SECONDS + 5.0
_QUIET_SECONDS = 5.0
# How long one instance may take to take the lock, and then the other to hand its batch over: together less than
# statements wait for a row.
_PARTNER_SECONDS = 0.1
_WARM_UPS = 2
_CLEAN_RUNS = 3
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Point:
    """Where and how a run is disturbed: at a boundary, or at an await."""

    where: Boundary | Await
    mode: Mode | AwaitMode


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one point. `broken` names what did not hold; `fired`, whether the fault happened at all."""

    strategy: str
    scenario: str
    masters: int
    where: str
    mode: str
    fired: bool
    broken: tuple[str, ...]
    told: str
    seconds: float

    @property
    def verdict(self) -> str:
        return "broken" if self.broken else "held" if self.fired else "not reached"


@dataclass(slots=True)
class _Run:
    """One scenario on coupons of its own.

    `ours` claim from the service, `partners` from the second instance. `made` are the ids of claims that there were
    before.
    """

    names: list[str]
    ours: list[Claimant]
    partners: list[Claimant] = field(default_factory=list)
    told: dict[Claimant, Answer] = field(default_factory=dict)
    made: dict[Claimant, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def claimants(self) -> list[Claimant]:
        return self.ours + self.partners


class Lane:
    """A stage, what is on record of it, and the second instance, if the scenario has one."""

    def __init__(
        self,
        stage: Stage,
        records: Records,
        reconcile: Callable[[], Awaitable[object]],
        strategy: str,
        scenario: Scenario,
        masters: int,
        partner: Partner | None = None,
    ) -> None:
        self.strategy = strategy
        self.scenario = scenario
        self._masters = masters
        self._stage = stage
        self._records = records
        self._reconcile = reconcile
        self._partner = partner
        self._numbers = count(1)

    async def survey(self) -> tuple[list[Boundary], list[Await]]:
        """The boundaries and the awaits of a run without a fault, once all connections are open.

        Raises:
            AssertionError: not even then everything holds.
        """
        boundaries: list[Boundary] = []
        awaits: list[list[Await]] = []
        for _ in range(_WARM_UPS):
            await self._what_a_clean_run_breaks()
        for _ in range(_CLEAN_RUNS):
            broken = await self._what_a_clean_run_breaks()
            assert not broken, f"without any fault: {broken}"
            boundaries += [each for each in self._stage.conductor.counted if each not in boundaries]
            awaits.append(self._stage.service.work.counted)
        return boundaries, sorted(awaits, key=len)[_CLEAN_RUNS // 2]

    async def disturb(self, point: Point) -> Result:
        """Run with a fault at the point, check everything, and leave the service as it was before."""
        started = time.monotonic()
        for _ in range(_TRIES):
            run = await self._run(point)
            fired = self._fired()
            await self._check_all(run, point)
            if not run.broken:
                run.broken += [f"I13: afterwards, {wrong}" for wrong in await self._what_a_clean_run_breaks()]
            if fired or run.broken:
                break
        if run.broken:
            await self._stage.restart()
            await self._what_a_clean_run_breaks()
        return Result(
            strategy=self.strategy,
            scenario=self.scenario.name,
            masters=self._masters,
            where=str(point.where),
            mode=str(point.mode),
            fired=fired,
            broken=tuple(run.broken),
            told=", ".join(sorted({str(answer) for answer in run.told.values()})),
            seconds=time.monotonic() - started,
        )

    def _fired(self) -> bool:
        return self._stage.conductor.fired or self._stage.service.work.fired

    def _requests(self, run: _Run, those: Sequence[Claimant]) -> list[Request]:
        return [self.scenario.request(claimant, run.made.get(claimant, "")) for claimant in those]

    async def _made_before(self, those: Sequence[Claimant]) -> dict[Claimant, str]:
        """The ids of claims that are made now, without a fault, as soon as the service is well."""
        until = time.monotonic() + _HEALED_SECONDS
        while True:
            requests = [claim_request(claimant, held=self.scenario.held) for claimant in those]
            made = await ask_all(self._stage.service.port, requests, ANSWER_SECONDS)
            if all(answer.claim_id for answer in made) or time.monotonic() >= until:
                return {claimant: answer.claim_id for claimant, answer in zip(those, made, strict=True)}

    async def _run(self, point: Point | None) -> _Run:
        number = next(self._numbers)
        names = [f"{self.strategy}-{id(self):x}-{number}-{i}" for i in range(self.scenario.coupons)]
        run = _Run(names, claimants(self.scenario, names), partners_claimants(self.scenario, names))
        await self._offer(names)
        if self.scenario.sells:
            first = [claim_request(Claimant(name, "first")) for name in names]
            await ask_all(self._stage.service.port, first, ANSWER_SECONDS)
            await self._records.take_back(names)
        if self.scenario.act not in (Act.CLAIM, Act.JOIN):
            run.made = await self._made_before(run.ours)
        if self.scenario.locked_seconds:
            await self._records.lock(names, self.scenario.locked_seconds)
        stage, work = self._stage, self._stage.service.work
        if point is not None and isinstance(point.where, Boundary) and isinstance(point.mode, Mode):
            stage.conductor.begin(point.where, point.mode)
            work.begin()
        elif point is not None and isinstance(point.where, Await) and isinstance(point.mode, AwaitMode):
            stage.conductor.begin()
            work.begin(point.where, point.mode)
        else:
            stage.conductor.begin()
            work.begin()
        client_waits = CLIENT_PATIENCE_SECONDS if self._is_about_the_client(point) else ANSWER_SECONDS + 1.0
        try:
            told = await self._told(run, client_waits)
            run.told = dict(zip(run.claimants, told, strict=True))
            await self._until_nothing_more_is_said(run)
        finally:
            stage.conductor.end()
            work.end()
        return run

    async def _offer(self, names: Sequence[str]) -> None:
        await self._records.offer(names, self.scenario.units, self.strategy)

    async def _told(self, run: _Run, client_waits: float) -> list[Answer]:
        """Ask for all of `run.claimants`, and return what they are told."""
        ours = ask_all(self._stage.http.port, self._requests(run, run.ours), client_waits)
        if self._partner is None:
            return await ours
        partners = self._partner.ask_all(run.partners)
        async with self._records.rows_locked(run.names):
            # Whoever asks first takes the lock, and keeps it until the rows are free; meanwhile the other hands over.
            first, second = (ours, partners) if self.scenario.partner is Role.ORIGIN else (partners, ours)
            asked = [asyncio.create_task(first)]
            await comes_about(lambda: self._records.is_locked(run.names), _PARTNER_SECONDS)
            asked.append(asyncio.create_task(second))
            await asyncio.sleep(_PARTNER_SECONDS)
        told = [await each for each in asked]
        return [*told[0], *told[1]] if first is ours else [*told[1], *told[0]]

    def _is_about_the_client(self, point: Point | None) -> bool:
        return point is not None and isinstance(point.where, Boundary) and point.where.server == "client"

    async def _until_nothing_more_is_said(self, run: _Run) -> None:
        """The answer is not the end of it: the lock is given back after that."""
        work, conductor = self._stage.service.work, self._stage.conductor
        await comes_about(lambda: not conductor.delayed, ANSWER_SECONDS)
        if not await comes_about(lambda: not work.open_tasks(), ANSWER_SECONDS):
            run.broken.append(f"I12: still running: {[task.get_coro() for task in work.open_tasks()]}")
        said = -1
        while said != len(conductor.counted):
            said = len(conductor.counted)
            await asyncio.sleep(0.02)

    async def _what_a_clean_run_breaks(self) -> list[str]:
        """Run without a fault, which leaves all connections open. Returns what was wrong: nothing, that is.

        I13 gives fresh claims some seconds until they succeed; a wrong answer is wrong at once.
        """
        until = time.monotonic() + _HEALED_SECONDS
        while True:
            run = await self._run(None)
            await self._check_all(run, None)
            undecided = [answer for answer in run.told.values() if not is_decided(answer)]
            if run.broken or not undecided:
                return run.broken
            if time.monotonic() >= until:
                return [f"I13: {answer}" for answer in undecided]

    async def _check_all(self, run: _Run, point: Point | None) -> None:
        """Everything that has to hold; what does not is added to `run.broken`."""
        stocks = await self._settled_stocks(run)
        run.broken += violations_on_record(stocks, run.claimants)
        act = self.scenario.act
        if act is Act.CLAIM:
            run.broken += violations_of_first_answers(stocks, run.told, answer_seconds=ANSWER_SECONDS)
        else:
            run.broken += violations_of_transitions(stocks, run.told, act, in_the_end=False)
        await self._revive(point)
        run.broken += [f"I12: {each}" for each in await self._what_is_left_behind(run, point)]
        if point is not None:
            again = await self._ask_again(run)
            stocks = await self._records.stocks(run.names)
            run.broken += violations_on_record(stocks, run.claimants)
            if act is Act.CLAIM:
                run.broken += violations_of_answers_again(stocks, run.told, again)
            else:
                run.broken += violations_of_transitions(stocks, again, act, in_the_end=True)
        await self._conclude(run)

    async def _revive(self, point: Point | None) -> None:
        """Start the service again if it was killed."""
        if isinstance(point and point.mode, Mode) and point.mode.kills and self._fired():  # type: ignore[union-attr]
            await self._stage.start()

    async def _conclude(self, run: _Run) -> None:
        """Check the counters, and forget the coupons."""
        if self.strategy == "counter":
            # All lanes have the same masters, and so one lock of the job.
            while await self._reconcile() is None:
                await asyncio.sleep(0.02)
            run.broken += [f"I10: {each}" for each in await self._records.counters_differ(run.names)]
        try:
            await self._records.withdraw(run.names)
        except psycopg.errors.ForeignKeyViolation:
            run.broken.append("I12: a claim was made when everything was quiet")

    async def _settled_stocks(self, run: _Run) -> dict[str, Stock]:
        """What is on record once no transaction is under way."""
        until = time.monotonic() + _QUIET_SECONDS
        while sessions := await self._records.open_transactions():
            if time.monotonic() >= until:
                run.broken.append(f"I12: sessions still busy: {dict(sessions)}")
                break
            await asyncio.sleep(0.01)
        return await self._records.stocks(run.names)

    async def _what_is_left_behind(self, run: _Run, point: Point | None) -> list[str]:
        lock_seconds = LOCK_TTL_SECONDS + 0.5
        if point is not None and point.mode in {Mode.CANCEL_CALLER_BEFORE, Mode.CANCEL_CALLER_AFTER}:
            lock_seconds = LOCK_TTL_SECONDS * 0.8  # given back, and not left to expire
        left = await self._records.wait_until_no_lock_is_left(run.names, lock_seconds)
        port = self._stage.service.port
        until = time.monotonic() + _HEALED_SECONDS
        while True:
            metrics = await get(port, "/metrics")
            borrowed = _metric(metrics, 'claimsvc_db_pool_connections{pool="claims",state="in_use"}')
            waiters = _metric(metrics, "claimsvc_lock_waiters")
            down = re.findall(r'(?m)^claimsvc_redis_master_up\{master="(.*)"\} 0.0$', metrics)
            if not (borrowed or waiters or down):
                break
            if time.monotonic() >= until:
                left += [f"{borrowed:.0f} connections borrowed, {waiters:.0f} in line, masters down: {down}"]
                break
            await asyncio.sleep(0.02)
        if broken := _metric(metrics, "claimsvc_invariant_violations_total"):
            left.append(f"the service has counted {broken:.0f} violations itself")
        return left

    async def _ask_again(self, run: _Run) -> dict[Claimant, Answer]:
        """Everybody claims again, until everybody has been told something, or too long."""
        until = time.monotonic() + _HEALED_SECONDS
        answers: dict[Claimant, Answer] = {}
        undecided = list(run.claimants)
        while undecided and time.monotonic() < until:
            told = await ask_all(self._stage.service.port, self._requests(run, undecided), ANSWER_SECONDS)
            answers.update(zip(undecided, told, strict=True))
            undecided = [claimant for claimant, answer in answers.items() if not is_decided(answer)]
        return answers


class TicketLane(Lane):
    """A lane whose coupons have queues, and whose claims wait in them."""

    async def _offer(self, names: Sequence[str]) -> None:
        await super()._offer(names)
        await self._records.pause(names)

    async def _told(self, run: _Run, client_waits: float) -> list[Answer]:
        if self.scenario.act is not Act.START:
            return await super()._told(run, client_waits)
        started = time.monotonic()
        await self._records.resume(run.names)
        # Whoever is killed starts nobody any more.
        await comes_about(lambda: self._are_ended(run, or_killed=True), client_waits)
        seconds = time.monotonic() - started
        return [Answer(202, "", run.made[claimant], seconds) for claimant in run.claimants]

    async def _are_ended(self, run: _Run, *, or_killed: bool = False) -> bool:
        mode = self._stage.conductor.mode
        if or_killed and self._fired() and mode is not None and mode.kills:
            return True
        return all(each.state not in ("waiting", "started") for each in await self._records.tickets(run.names))

    async def _check_all(self, run: _Run, point: Point | None) -> None:
        act = self.scenario.act
        stocks = await self._settled_stocks(run)
        run.broken += violations_on_record(stocks, run.claimants)
        if act is not Act.START:
            found = await self._records.tickets(run.names)
            run.broken += violations_of_tickets(found, run.told, act, in_the_end=False)
        await self._revive(point)
        run.broken += [f"I12: {each}" for each in await self._what_is_left_behind(run, point)]
        told = run.told if act is Act.START else await self._ask_again(run)
        # Whoever waits is started now, and has what is due in the end.
        await self._records.resume(run.names)
        if not await comes_about(lambda: self._are_ended(run), _HEALED_SECONDS):
            run.broken.append("I13: tickets are not ended")
        await self._settled_stocks(run)
        run.broken += violations_on_record(await self._records.stocks(run.names), run.claimants)
        tickets = await self._records.tickets(run.names)
        for answers in () if act is Act.START else (run.told, told):
            run.broken += violations_of_tickets(tickets, answers, act, in_the_end=True)
        run.broken += violations_of_ends(tickets, await self._records.stocks(run.names), run.claimants, told, act)
        await self._conclude(run)


def _metric(metrics: str, series: str) -> float:
    found = re.search(rf"(?m)^{re.escape(series)} (\S+)$", metrics)
    assert found is not None, f"there is no metric {series}"
    return float(found[1])


@asynccontextmanager
async def open_lane(
    database_url: str, redis_urls: Sequence[str], strategy: str, scenario: Scenario, zygote: Zygote | None
) -> AsyncIterator[Lane]:
    """A lane on a database of its own; its service is in this process, or a process from the zygote."""
    settings = Settings(
        database_url=database_url,
        redis_urls=tuple(redis_urls),
        redis_timeout_seconds=5.0,  # a busy machine is no fault of the masters
        claim_queue_timeout_seconds=0.01,
    )
    async with (
        open_records(database_url, redis_urls) as records,
        bootstrap.open_jobs(settings) as jobs,
        open_stage(database_url, tuple(redis_urls), zygote) as stage,
        open_partner(database_url, redis_urls) if scenario.partner is not None else nullcontext() as partner,
    ):
        kind = TicketLane if scenario.act.is_of_tickets else Lane
        yield kind(stage, records, jobs.reconcile, strategy, scenario, len(redis_urls), partner)
