"""`python -m tests.simulation`: explore many seeds, or repeat one."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice

from tests.simulation.border import simulated_surroundings
from tests.simulation.explore import describe, play, shrink, tally
from tests.simulation.scenario import scenario_of

_CHUNK = 200


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _explore(first_seed: int, seeds: int) -> tuple[Counter[str], list[int]]:
    """Run a chunk of seeds: what happened, and which of them break a promise."""
    happened: Counter[str] = Counter()
    failed = []
    with simulated_surroundings() as border:
        for seed in range(first_seed, first_seed + seeds):
            run = play(scenario_of(seed), border)
            tally(happened, run)
            if run.violations:
                failed.append(seed)
    return happened, failed


def _explain(seed: int) -> bool:
    """Repeat one seed and say what came of it; whether every promise was kept."""
    with simulated_surroundings() as border:
        run = play(scenario_of(seed), border)
        if run.violations:
            _say(describe(seed, run, shrink(run, border)))
        else:
            answers = Counter(type(record.answer).__name__ for record in run.records)
            _say(f"seed {seed} keeps every promise: {run.turns} turns, {run.seconds:.6f} s, {dict(answers)}")
        return not run.violations


def _campaign(first_seed: int, seeds: int, minutes: float | None, jobs: int) -> bool:
    """Run chunks in several processes until there are enough, time is up, or one breaks a promise."""
    started = time.monotonic()
    ends = started + minutes * 60 if minutes is not None else float("inf")
    sizes = count() if minutes is not None else range(-(-seeds // _CHUNK))
    starts = (first_seed + number * _CHUNK for number in sizes)
    happened: Counter[str] = Counter()
    failed: list[int] = []
    with ProcessPoolExecutor(jobs) as pool:
        while not failed and time.monotonic() < ends and (chunk := list(islice(starts, jobs))):
            for counted, broken in pool.map(_explore, chunk, [_CHUNK] * len(chunk)):
                happened += counted
                failed += broken
    seconds = time.monotonic() - started
    runs = happened["runs"]
    _say(f"seeds {first_seed} to {first_seed + runs - 1} in {seconds:.1f} s, {runs / seconds * 60:.0f} a minute")
    for name, times in sorted(happened.items()):
        _say(f"  {times:>10}  {name}")
    for seed in failed[:3]:
        _explain(seed)
    _say(f"{len(failed)} seeds break a promise: {failed[:20]}" if failed else "every promise was kept")
    return not failed


def main() -> int:
    """Read the arguments; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="with --seeds: the first one; alone: repeat this one and explain it")
    parser.add_argument("--seeds", type=int, help="how many to explore (default 2000)")
    parser.add_argument("--minutes", type=float, help="explore for so long instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    asked = parser.parse_args()
    if asked.seed is not None and asked.seeds is None and asked.minutes is None:
        return 0 if _explain(asked.seed) else 1
    return 0 if _campaign(asked.seed or 0, asked.seeds or 2000, asked.minutes, asked.jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
