"""Running many seeds, and making one that fails smaller."""

from collections import Counter
from dataclasses import replace

from tests.simulation.border import Border
from tests.simulation.run import Run, Simulation
from tests.simulation.scenario import Scenario, smaller

# A smaller scenario has other delays. It counts as failing if it does so in one of so many orders of events.
_ORDERS = 6


def play(scenario: Scenario, border: Border) -> Run:
    """Run one scenario."""
    return Simulation(scenario, border).play()


def promises(run: Run) -> set[str]:
    """The names of the promises that were broken."""
    return {violation.partition(":")[0] for violation in run.violations}


def shrink(run: Run, border: Border, *, tries: int = 1500) -> Run:
    """The smallest run that can be found which breaks one of the same promises."""
    wanted = promises(run)
    found = True
    while found and tries > 0:
        found = False
        for candidate in smaller(run.scenario):
            for order in range(_ORDERS):
                tries -= 1
                again = play(replace(candidate, order=run.scenario.order + order), border)
                if promises(again) & wanted:
                    run, found = again, True
                    break
            if found or tries <= 0:
                break
    return run


def describe(seed: int, run: Run, shrunk: Run) -> str:
    """A failure for people: what was broken, how to see it again, and the least that breaks it."""
    scenario = shrunk.scenario
    lines = [
        f"seed {seed} breaks a promise (python -m tests.simulation --seed {seed}):",
        *(f"  {violation}" for violation in run.violations[:5]),
        f"the smallest scenario found that does, {scenario.claims} claims and {len(scenario.faults)} faults:",
        *(f"  {violation}" for violation in shrunk.violations[:5]),
        *(f"  {name} = {getattr(scenario, name)!r}" for name in scenario.__slots__),
        "its claims:",
        *(
            f"  {record.started - 1000:8.4f} to {(record.ended or 0) - 1000:8.4f}  instance {record.process} "
            f"{record.coupon.name} {record.user}: {record.answer!r}"
            for record in shrunk.records
        ),
    ]
    return "\n".join(lines)


def tally(runs: "Counter[str]", run: Run) -> None:
    """Count what happened, so that a campaign can say that its faults fired."""
    runs["runs"] += 1
    runs["claims"] += len(run.records)
    runs["turns"] += run.turns
    for kind in run.fired:
        runs[kind] += 1
    for kind, moment in run.hits:
        runs[f"hit: {kind}, when one {moment}"] += 1
    for what, times in run.combined.items():
        runs[what] += times
    for record in run.records:
        runs[f"answer {type(record.answer).__name__}"] += 1
