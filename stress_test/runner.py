"""One run: coupons are made, connections opened, claims released together or at a rate, all read back."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

import aiohttp

from stress_test.client import (
    CONTROL_CONNECTIONS,
    ReadBackError,
    ServiceClient,
    claim_body,
    send_claim,
)
from stress_test.connections import WarmSession, warm_session
from stress_test.expectations import Violation, judge
from stress_test.history import CLAIMED, Attempt, CouponPlan, CouponState, History, is_unknown
from stress_test.scenarios import Plan, PlannedClaim, Scenario, Sizes, make_plan


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to run.

    `urls` are the instances, without a slash at the end; `connections` None lets the scenario choose;
    `timeout_seconds` is for each request; `max_unknown` is how many claims of a round may end without a
    definite answer in a scenario that does not fix its outcomes.
    """

    urls: tuple[str, ...]
    admin_key: str = field(repr=False)
    rounds: int = 1
    connections: int | None = None
    timeout_seconds: float = 30.0
    max_unknown: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """One round and its proof.

    `states` are those of the histories' coupons, None where one could not be read back; `claiming_seconds` is from
    the release to the last answer.
    """

    histories: tuple[History, ...]
    states: tuple[CouponState | None, ...]
    claiming_seconds: float
    violations: tuple[Violation, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """All rounds of a scenario."""

    scenario: str
    sizes: Sizes
    target: Target
    started_at: datetime
    duration_seconds: float
    rounds: tuple[Round, ...]

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Of every round, in order."""
        return tuple(violation for one in self.rounds for violation in one.violations)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Of every round, coupon by coupon."""
        return tuple(attempt for one in self.rounds for history in one.histories for attempt in history.attempts)


class Progress:
    """Told how far a run is; this one does nothing with it."""

    def expect(self, claims: int) -> None:
        """That many more claims will be sent."""

    def answered(self) -> None:
        """One claim has come to its end."""

    def stage(self, text: str) -> None:
        """What is being done now."""


async def _claim(
    warm: WarmSession, url: str, planned: PlannedClaim, body: bytes, started: float, progress: Progress
) -> Attempt:
    answer = await send_claim(warm.session, url, body)
    finished = perf_counter()
    progress.answered()
    return Attempt(planned.user_id, planned.coupon_name, started, finished, answer.outcome, answer.claim)


async def _release_together(
    warm: WarmSession, urls: Sequence[str], plan: Plan, progress: Progress
) -> tuple[float, list[Attempt]]:
    """Every claim is a task that waits at one event; the clock of all of them starts when it is set."""
    release = asyncio.Event()
    released_at = 0.0

    async def run(number: int, planned: PlannedClaim) -> Attempt:
        body = claim_body(planned.user_id, planned.coupon_name)
        await release.wait()
        return await _claim(warm, urls[number % len(urls)], planned, body, released_at, progress)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(number, planned)) for number, planned in enumerate(plan.claims)]
        # Tasks start in the order of their making, so after one turn of the loop all of them wait.
        await asyncio.sleep(0)
        released_at = perf_counter()
        release.set()
    return released_at, [task.result() for task in tasks]


async def _release_on_schedule(
    warm: WarmSession, urls: Sequence[str], plan: Plan, progress: Progress
) -> tuple[float, list[Attempt]]:
    """Each claim is sent when it is due, whatever became of those before; its clock starts when it is due.

    A stalled service therefore shows in every latency that it delayed, not only in the one request that met
    it ("coordinated omission").
    """
    released_at = perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, planned in enumerate(plan.claims):
            due = released_at + planned.due_seconds
            now = perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
                # The loop's timers count whole milliseconds and can be early by a part of one.
                due = min(due, perf_counter())
            body = claim_body(planned.user_id, planned.coupon_name)
            tasks.append(group.create_task(_claim(warm, urls[number % len(urls)], planned, body, due, progress)))
    return released_at, [task.result() for task in tasks]


def _histories(coupons: Sequence[CouponPlan], attempts: Sequence[Attempt]) -> tuple[History, ...]:
    by_coupon: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_coupon[attempt.coupon_name].append(attempt)
    return tuple(History(coupon, tuple(by_coupon[coupon.name])) for coupon in coupons)


async def _read_back(client: ServiceClient, history: History) -> CouponState | Violation:
    ids = [attempt.claim.id for attempt in history.with_outcome(CLAIMED) if attempt.claim is not None]
    try:
        return await client.read_back(history.coupon.name, ids)
    except ReadBackError as failure:
        return Violation("read-back", history.coupon.name, str(failure))


def _unknowns(histories: Sequence[History], states: Sequence[CouponState | Violation]) -> tuple[int, int]:
    """How many claims got no definite answer, and how many of their users hold a claim all the same."""
    unknown = found = 0
    for history, state in zip(histories, states, strict=True):
        users = [attempt.user_id for attempt in history.attempts if is_unknown(attempt.outcome)]
        unknown += len(users)
        if isinstance(state, CouponState):
            answered = {attempt.user_id for attempt in history.with_outcome(CLAIMED)}
            found += len((set(users) - answered) & {claim.user_id for claim in state.claims})
    return unknown, found


async def _run_round(client: ServiceClient, plan: Plan, target: Target, progress: Progress) -> Round:
    connections = min(target.connections or plan.connections, len(plan.claims))
    progress.expect(len(plan.claims))
    progress.stage("making coupons")
    for coupon in plan.coupons:
        await client.create_coupon(coupon)
    progress.stage("opening connections")
    async with warm_session(target.urls, connections, target.timeout_seconds) as warm:
        progress.stage("claiming")
        scheduled = any(planned.due_seconds for planned in plan.claims)
        fire = _release_on_schedule if scheduled else _release_together
        released_at, attempts = await fire(warm, target.urls, plan, progress)
        late = warm.opened_late
    progress.stage("reading back")
    histories = _histories(plan.coupons, attempts)
    states = await asyncio.gather(*(_read_back(client, history) for history in histories))
    violations: list[Violation] = []
    for history, state in zip(histories, states, strict=True):
        if isinstance(state, Violation):
            violations += [*judge(history, None), state]
        else:
            violations += judge(history, state)
    notes = [f"connections opened during the claims, inside their latencies: {late}"] if late else []
    unknown, found = _unknowns(histories, states)
    if unknown:
        notes.append(f"claims without a definite answer: {unknown}; of these found recorded: {found}")
        if unknown > target.max_unknown and all(coupon.expected is None for coupon in plan.coupons):
            sentence = f"claims without a definite answer: {unknown}, allowed: {target.max_unknown}"
            violations.append(Violation("definite-answers", plan.coupons[0].name, sentence))
    claiming_seconds = max(attempt.finished_seconds for attempt in attempts) - released_at
    read = tuple(None if isinstance(state, Violation) else state for state in states)
    return Round(histories, read, claiming_seconds, tuple(violations), tuple(notes))


async def run_scenario(
    scenario: Scenario,
    sizes: Sizes,
    target: Target,
    progress: Progress | None = None,
    make_token: Callable[[], str] = lambda: secrets.token_hex(4),
) -> Run:
    """Run every round of a scenario and judge it. What the service does wrong is in the result, never raised.

    Args:
        scenario: one of `scenarios.SCENARIOS`.
        sizes: the scenario's defaults, or what replaces them.
        target: where and how.
        progress: told how far the run is.
        make_token: makes the part of names that keeps rounds apart.

    Raises:
        UsageError: the sizes are too large, the admin key is refused, or the limit on open files is too low.
        ServiceUnavailableError: a coupon could not be made, or connections not be opened.
    """
    progress = progress or Progress()
    started_at = datetime.now(UTC)
    began = perf_counter()
    rounds = []
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONTROL_CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=target.timeout_seconds),
    ) as session:
        client = ServiceClient(session, target.urls, target.admin_key)
        for _ in range(target.rounds):
            plan = make_plan(scenario, sizes, make_token())
            rounds.append(await _run_round(client, plan, target, progress))
    return Run(scenario.name, sizes, target, started_at, perf_counter() - began, tuple(rounds))
