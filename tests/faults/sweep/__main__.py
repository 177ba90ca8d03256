"""The crash-point sweep on the command line; exit status 1 if anything did not hold."""

import argparse
import sys
import time
from collections import Counter

from claimsvc.domain import StrategyName
from tests.faults.sweep import Plan, Result, run_sweep
from tests.faults.sweep.boundaries import Mode
from tests.faults.sweep.claims import SCENARIOS
from tests.faults.sweep.work import AwaitMode

_MODES = {str(mode): mode for mode in (*Mode, *AwaitMode)}


def main() -> None:
    """Sweep as asked, and print what held and what did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep", description=__doc__)
    parser.add_argument("--strategy", action="append", choices=list(StrategyName), help="repeat for several; all")
    parser.add_argument("--scenario", action="append", choices=[each.name for each in SCENARIOS], help="likewise")
    parser.add_argument("--mode", action="append", choices=list(_MODES), help="likewise")
    parser.add_argument("--masters", type=int, default=3, choices=(1, 3, 5))
    parser.add_argument("--share", type=float, default=1.0, help="of the points, chosen at random by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", type=int, default=0, help="also print so many of the slowest points")
    arguments = parser.parse_args()
    plan = Plan(
        strategies=arguments.strategy or list(StrategyName),
        scenarios=arguments.scenario or (),
        masters=arguments.masters,
        modes=[_MODES[name] for name in arguments.mode or _MODES],
        share=arguments.share,
        seed=arguments.seed,
    )
    started = time.monotonic()
    results = run_sweep(plan, _report)
    print(table(results))
    for result in sorted(results, key=lambda result: -result.seconds)[: arguments.slow]:
        print(f"{result.seconds:6.2f} s  {describe(result)}")
    verdicts = Counter(result.verdict for result in results)
    print(
        f"\nseed {plan.seed}, {len(results)} points in {time.monotonic() - started:.0f} s: "
        + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    )
    sys.exit(1 if verdicts["broken"] or not verdicts["held"] else 0)


def _report(result: Result) -> None:
    if result.broken:
        print(f"BROKEN {describe(result)} (told {result.told})", *result.broken, sep="\n    ", flush=True)


def describe(result: Result) -> str:
    return f"{result.strategy}, {result.scenario}, {result.mode} at {result.where}"


_SHORT = {"held": "ok", "broken": "BROKEN", "not reached": "-"}


def table(results: list[Result]) -> str:
    """Boundary by mode, each strategy and scenario by itself; awaits by how many of them held."""
    lines: list[str] = []
    awaits = {str(mode) for mode in AwaitMode}
    for group in dict.fromkeys((result.strategy, result.scenario) for result in results):
        mine = [result for result in results if (result.strategy, result.scenario) == group]
        lines.append(f"\n{group[0]}, {group[1]}, {mine[0].masters} masters")
        modes = [mode for mode in _MODES if mode not in awaits and any(result.mode == mode for result in mine)]
        where = list(dict.fromkeys(result.where for result in mine if result.mode not in awaits))
        verdicts = {(result.where, result.mode): _SHORT[result.verdict] for result in mine}
        width = max([len(place) for place in where], default=0)
        if modes:
            lines.append(" " * width + "  " + "  ".join(modes))
        lines += [
            f"{place:{width}}  " + "  ".join(f"{verdicts.get((place, mode), ''):{len(mode)}}" for mode in modes)
            for place in where
        ]
        for mode in AwaitMode:
            count = Counter(result.verdict for result in mine if result.mode == str(mode))
            if count:
                told = ", ".join(f"{number} {verdict}" for verdict, number in sorted(count.items()))
                lines.append(f"{mode} at each await of {count.total()}: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
