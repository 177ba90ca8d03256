"""One claim and several, with a failure at a choice of the boundaries with the outside: whatever happens, all holds.

`python -m tests.faults.sweep` takes all of them, `--seed` the same ones again.
"""

import asyncio
import random
from collections.abc import Sequence

import pytest

from claimsvc.domain import Attempt, Claimed, SoldOut, StrategyName
from claimsvc.embedded import PostgresServer
from claimsvc.errors import UnavailableError
from claimsvc.postgres.claiming.fast_path import FastPath, FastPathOutcome
from tests.faults.sweep import Plan, Result, sweep
from tests.faults.sweep.boundaries import Mode
from tests.faults.sweep.claims import BATCH, HANDED, JOINED, LEFT, RECEIVED, SALE, SINGLE, STARTED

pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=0)]

_SHARE = 0.03
_SHARE_OF_COMBINING = 0.01
_SHARE_OF_TICKETS = 0.002


def broken(results: Sequence[Result]) -> list[str]:
    return [
        f"{result.strategy}, {result.scenario}, {result.mode} at {result.where}: {'; '.join(result.broken)}"
        for result in results
        if result.broken
    ]


@pytest.mark.parametrize("strategy", list(StrategyName))
async def test_whatever_fails_at_a_boundary_nothing_is_lost_and_nothing_left_behind(
    strategy: StrategyName,
    postgres: PostgresServer,
    template_database: str,
    redis_urls: tuple[str, ...],
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    scenarios = (SINGLE.name, BATCH.name, SALE.name)
    plan = Plan([strategy], scenarios, masters=3, share=_SHARE, seed=seed)
    results = await sweep(plan, postgres, template_database, redis_urls)
    assert not broken(results), f"seed {seed}"
    fired = sum(result.fired for result in results)
    assert fired >= 0.5 * len(results), f"only {fired} of {len(results)} faults happened; seed {seed}"


async def test_whatever_fails_while_instances_combine_nothing_is_lost_and_nothing_left_behind(
    postgres: PostgresServer, template_database: str, redis_urls: tuple[str, ...]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    plan = Plan([StrategyName.REDLOCK], [HANDED.name, RECEIVED.name], masters=3, share=_SHARE_OF_COMBINING, seed=seed)
    results = await sweep(plan, postgres, template_database, redis_urls)
    assert not broken(results), f"seed {seed}"
    assert any(result.fired for result in results), f"no fault happened; seed {seed}"


async def test_whatever_fails_while_tickets_join_start_and_leave_each_ends_once(
    postgres: PostgresServer, template_database: str, redis_urls: tuple[str, ...]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    scenarios = (JOINED.name, STARTED.name, LEFT.name)
    plan = Plan([StrategyName.REDLOCK], scenarios, masters=3, share=_SHARE_OF_TICKETS, seed=seed)
    results = await sweep(plan, postgres, template_database, redis_urls)
    assert not broken(results), f"seed {seed}"
    assert any(result.fired for result in results), f"no fault happened; seed {seed}"


async def test_a_failure_that_is_taken_for_sold_out_is_noticed(
    postgres: PostgresServer, template_database: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = FastPath.admit

    async def lying(self: FastPath, attempts: Sequence[Attempt]) -> list[FastPathOutcome]:
        try:
            return await admit(self, attempts)
        except UnavailableError:
            return [SoldOut()] * len(attempts)

    monkeypatch.setattr(FastPath, "admit", lying)
    results = await _errors_under_row_locks(postgres, template_database, redis_urls)
    assert any("I9" in wrong for result in results for wrong in result.broken)


async def test_an_answer_that_comes_before_its_commit_is_noticed(
    postgres: PostgresServer, template_database: str, redis_urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = FastPath.admit
    told: dict[str, FastPathOutcome] = {}

    async def hasty(self: FastPath, attempts: Sequence[Attempt]) -> list[FastPathOutcome]:
        try:
            outcomes = await admit(self, attempts)
        except UnavailableError:
            if not told:
                raise
            [claimed] = told.values()
            assert isinstance(claimed, Claimed)
            return [claimed] * len(attempts)
        told.update((attempt.user_id, outcome) for attempt, outcome in zip(attempts, outcomes, strict=True))
        return outcomes

    monkeypatch.setattr(FastPath, "admit", hasty)
    results = await _errors_under_row_locks(postgres, template_database, redis_urls)
    assert any("I4" in wrong for result in results for wrong in result.broken)


async def _errors_under_row_locks(
    postgres: PostgresServer, template_database: str, redis_urls: tuple[str, ...]
) -> list[Result]:
    plan = Plan([StrategyName.ROW_LOCK], [SINGLE.name], masters=1, modes=[Mode.ERROR])
    async with asyncio.timeout(100):
        return await sweep(plan, postgres, template_database, redis_urls)
