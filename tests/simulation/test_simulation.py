"""The claim path keeps its promises in every order of events and faults that is tried."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimsvc.domain import StrategyName
from claimsvc.errors import LockBusyError
from tests.simulation.border import simulated_surroundings
from tests.simulation.combining_mutants import batches_are_handed_over_whatever_time_is_left
from tests.simulation.explore import describe, play, promises, shrink, tally
from tests.simulation.mutants import MADE_WORSE, MUTANTS, Mutant, a_batch_that_fails_is_not_answered
from tests.simulation.scenario import ClaimPlan, ClientPlan, CouponPlan, Fault, Kind, Moment, Scenario, scenario_of

# A simulation depends on its seed alone: one that fails is not tried again.
pytestmark = pytest.mark.flaky(reruns=0)

# `python -m tests.simulation --minutes 60` explores more.
_SEEDS_OF_A_PART = int(os.environ.get("SIMULATION_SEEDS", "600")) // 4
_MOST_SEEDS_FOR_A_MUTANT = 10_000


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
def test_every_promise_is_kept_in_every_order_of_events_and_faults(part: int) -> None:
    happened: Counter[str] = Counter()
    with simulated_surroundings() as border:
        for seed in range(part * _SEEDS_OF_A_PART, (part + 1) * _SEEDS_OF_A_PART):
            run = play(scenario_of(seed), border)
            tally(happened, run)
            if run.violations:
                pytest.fail(describe(seed, run, shrink(run, border)))
    assert all(happened[kind] for kind in Kind), f"not every fault was tried: {happened}"
    for moment in Moment:
        assert any(moment in what for what in happened), f"no fault came when an instance {moment}: {happened}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_defect_is_found(mutant: Mutant) -> None:
    scenarios: Iterator[Scenario] = filter(MUTANTS[mutant], map(scenario_of, range(_MOST_SEEDS_FOR_A_MUTANT)))
    if mutant in MADE_WORSE:
        scenarios = map(MADE_WORSE[mutant], scenarios)
    with simulated_surroundings() as border, mutant():
        assert any(play(scenario, border).violations for scenario in scenarios)


def test_a_claim_that_was_handed_to_a_silent_holder_is_refused_as_soon_as_any_other() -> None:
    """The holder keeps its lock for longer than any claim waits, and some claims come when a wait in line ends."""
    holder = ClientPlan(0, tuple(ClaimPlan(0, f"u{number}", 0.0) for number in range(30)))
    others = [
        ClientPlan(1, tuple(ClaimPlan(0, f"u{client}-{number}", 0.13 * client) for number in range(4)))
        for client in range(12)
    ]
    late = set()
    # Whether the holder pauses while it has others' batches depends on the order of events.
    for order in range(6):
        scenario = Scenario(
            order=order,
            instances=2,
            masters=1,
            coupons=(CouponPlan("c0", 1000, StrategyName.REDLOCK),),
            clients=(holder, *others),
            faults=(Fault(Kind.PAUSE, 0.01, 8.0, 0, Moment.DECIDING),),
        )
        with simulated_surroundings() as border:
            run = play(scenario, border)
            assert not run.violations
            assert any(isinstance(record.answer, LockBusyError) for record in run.records)
            with batches_are_handed_over_whatever_time_is_left():
                late |= promises(play(scenario, border))
    assert late == {"late"}


def test_a_scenario_that_fails_is_made_smaller() -> None:
    with simulated_surroundings() as border, a_batch_that_fails_is_not_answered():
        # Of one instance: where several have to meet, it takes many claims.
        scenarios = (each for each in map(scenario_of, range(_MOST_SEEDS_FOR_A_MUTANT)) if each.instances == 1)
        runs = (play(scenario, border) for scenario in scenarios)
        run = next(run for run in runs if "unanswered" in promises(run) and run.scenario.claims > 8)
        shrunk = shrink(run, border)
        assert promises(shrunk) & promises(run)
        assert shrunk.scenario.claims <= 2
        assert len(shrunk.scenario.faults) <= 1


def test_a_seed_is_the_same_run_in_every_process() -> None:
    def explained(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "3"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    first, second = explained("1"), explained("2")
    assert "keeps every promise" in first
    assert first == second
