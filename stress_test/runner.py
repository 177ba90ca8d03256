"""Runs a scenario: creates coupons, opens connections, sends claims together or at a rate, reads everything back."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

import aiohttp

from stress_test.client import CONTROL_CONNECTIONS, claim_body, send_claim
from stress_test.connections import WarmSession, warm_session
from stress_test.expectations import Violation
from stress_test.history import Attempt, CouponPlan, CouponState, History
from stress_test.scenarios import Plan, PlannedClaim, Scenario, Sizes, make_plan
from stress_test.ticket_client import TicketClient
from stress_test.tickets import TicketHistory
from stress_test.verification import notes_of, promised_draw, unknowns, verify


@dataclass(frozen=True, slots=True)
class Target:
    """The service to test, and how.

    Args:
        urls: of the instances, without a trailing slash.
        admin_key: for creating coupons.
        rounds: number of rounds.
        connections: most open connections; None for the scenario's default.
        timeout_seconds: of each request.
        max_unknown: how many claims of a round may end without a definite answer, in scenarios that do not fix their
            outcomes.
        grace_seconds: how much longer than `max_wait_seconds` a ticket of a queue may take to end.
    """

    urls: tuple[str, ...]
    admin_key: str = field(repr=False)
    rounds: int = 1
    connections: int | None = None
    timeout_seconds: float = 30.0
    max_unknown: int = 0
    grace_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round and its verification.

    Args:
        histories: by coupon.
        states: of the histories' coupons; None if one could not be read back.
        tickets: of the histories' coupons; None for one without a queue, or that could not be read.
        claiming_seconds: from the release to the last answer.
        violations: of expectations.
        notes: observations that are not violations.
    """

    histories: tuple[History, ...]
    states: tuple[CouponState | None, ...]
    tickets: tuple[TicketHistory | None, ...]
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
        """The violations of all rounds, in order."""
        return tuple(violation for one in self.rounds for violation in one.violations)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts of all rounds, by coupon."""
        return tuple(attempt for one in self.rounds for history in one.histories for attempt in history.attempts)


class Progress:
    """Receives the progress of a run. This implementation ignores it."""

    def expect(self, claims: int) -> None:
        """Announce the number of claims that will be sent next."""

    def answered(self) -> None:
        """Report that one claim has finished."""

    def stage(self, text: str) -> None:
        """Report the current stage."""


async def _claim(
    warm: WarmSession, url: str, planned: PlannedClaim, body: bytes, started: float, progress: Progress
) -> Attempt:
    answer = await send_claim(warm.session, url, body)
    finished = perf_counter()
    progress.answered()
    return Attempt(planned.user_id, planned.coupon_name, started, finished, answer.outcome, answer.claim, answer.ticket)


async def _release_together(
    warm: WarmSession, urls: Sequence[str], plan: Plan, progress: Progress
) -> tuple[float, list[Attempt]]:
    """Send all claims together. Each is a task that waits for one event; their latencies count from its setting."""
    release = asyncio.Event()
    released_at = 0.0

    async def run(number: int, planned: PlannedClaim) -> Attempt:
        body = claim_body(planned.user_id, planned.coupon_name)
        await release.wait()
        return await _claim(warm, urls[number % len(urls)], planned, body, released_at, progress)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(number, planned)) for number, planned in enumerate(plan.claims)]
        # Tasks start in the order of their creation, so after one turn of the event loop all of them wait.
        await asyncio.sleep(0)
        released_at = perf_counter()
        release.set()
    return released_at, [task.result() for task in tasks]


async def _release_on_schedule(
    warm: WarmSession, urls: Sequence[str], plan: Plan, progress: Progress
) -> tuple[float, list[Attempt]]:
    """Send each claim when it is due, whether or not earlier ones were answered. Latencies count from the due time.

    So a stall of the service shows in the latency of every claim that it delayed, not only of one. This avoids
    "coordinated omission".
    """
    released_at = perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, planned in enumerate(plan.claims):
            due = released_at + planned.due_seconds
            now = perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
                # The event loop's timers have millisecond resolution and can fire slightly early.
                due = min(due, perf_counter())
            body = claim_body(planned.user_id, planned.coupon_name)
            tasks.append(group.create_task(_claim(warm, urls[number % len(urls)], planned, body, due, progress)))
    return released_at, [task.result() for task in tasks]


def _histories(coupons: Sequence[CouponPlan], attempts: Sequence[Attempt]) -> tuple[History, ...]:
    by_coupon: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_coupon[attempt.coupon_name].append(attempt)
    return tuple(History(coupon, tuple(by_coupon[coupon.name])) for coupon in coupons)


async def _run_round(client: TicketClient, plan: Plan, target: Target, progress: Progress) -> Round:
    connections = min(target.connections or plan.connections, len(plan.claims))
    progress.expect(len(plan.claims))
    progress.stage("creating coupons")
    for coupon in plan.coupons:
        await client.create_coupon(coupon)
    promised = [await promised_draw(client, coupon) for coupon in plan.coupons]
    progress.stage("opening connections")
    async with warm_session(target.urls, connections, target.timeout_seconds) as warm:
        progress.stage("claiming")
        scheduled = any(planned.due_seconds for planned in plan.claims)
        fire = _release_on_schedule if scheduled else _release_together
        released_at, attempts = await fire(warm, target.urls, plan, progress)
        late = warm.opened_late
    progress.stage("reading back")
    histories = _histories(plan.coupons, attempts)
    verified = await asyncio.gather(
        *(
            verify(client, history, each, target.grace_seconds)
            for history, each in zip(histories, promised, strict=True)
        )
    )
    violations = [violation for one in verified for violation in one.violations]
    notes = [f"connections opened during the claims, included in their latencies: {late}"] if late else []
    notes += notes_of(histories, verified)
    unknown, _ = unknowns(histories, verified)
    if unknown > target.max_unknown and all(coupon.expected is None for coupon in plan.coupons):
        sentence = f"claims without a definite answer: {unknown}, allowed: {target.max_unknown}"
        violations.append(Violation("definite-answers", plan.coupons[0].name, sentence))
    return Round(
        histories,
        tuple(one.state for one in verified),
        tuple(one.tickets for one in verified),
        max(attempt.finished_seconds for attempt in attempts) - released_at,
        tuple(violations),
        tuple(notes),
    )


async def run_scenario(
    scenario: Scenario,
    sizes: Sizes,
    target: Target,
    progress: Progress | None = None,
    make_token: Callable[[], str] = lambda: secrets.token_hex(4),
) -> Run:
    """Run all rounds of a scenario and check them. Failures of the service are in the result, not raised.

    Args:
        scenario: one of `scenarios.SCENARIOS`.
        sizes: of the scenario.
        target: the service to test, and how.
        progress: receives the progress of the run.
        make_token: generates a unique part for the names of each round.

    Raises:
        UsageError: the sizes are too large, the admin key is refused, or the limit of open files is too low.
        ServiceUnavailableError: a coupon could not be created, or the connections could not be opened.
    """
    progress = progress or Progress()
    started_at = datetime.now(UTC)
    started = perf_counter()
    rounds = []
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONTROL_CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=target.timeout_seconds),
    ) as session:
        client = TicketClient(session, target.urls, target.admin_key)
        for _ in range(target.rounds):
            plan = make_plan(scenario, sizes, make_token())
            rounds.append(await _run_round(client, plan, target, progress))
    return Run(scenario.name, sizes, target, started_at, perf_counter() - started, tuple(rounds))
