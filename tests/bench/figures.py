"""The figures that the service is judged by: ratios of medians within one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.contestants import (
    DEFAULT_STRATEGY,
    FLOOR,
    FOR_UPDATE,
    LOCK_PER_CLAIM,
    UNWATCHED,
    WATCHED,
    claims_contestant,
    strategy_contestant,
)
from tests.bench.rounds import Series

_QUICK_POWER, _FULL_POWER, _SMALL_POWER = 5, 7, 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the judgement. `at_least` and `aim` are bounds from below, or from above where `at_most`."""

    name: str
    measured: float | None
    at_least: float
    aim: float
    at_most: bool = False

    def reaches(self, bound: float) -> bool:
        """Whether what was measured keeps to a bound."""
        if self.measured is None:
            return False
        return self.measured <= bound if self.at_most else self.measured >= bound


def judged_figures(series: Mapping[str, Series]) -> list[Figure]:
    """What the rounds come to. A figure whose contestants were not measured has no value.

    Args:
        series: by the contestant's name.
    """
    hot = strategy_contestant(DEFAULT_STRATEGY)

    def variant(name: str) -> str:
        return strategy_contestant(DEFAULT_STRATEGY, name)

    def ratio(of: str, to: str, figure: Callable[[Series], float] = lambda one: one.rate) -> float | None:
        if of not in series or to not in series:
            return None
        return figure(series[of]) / figure(series[to]) if figure(series[to]) else None

    instances = series.get(variant("3 instances"))
    refused = sum(n for name, n in instances.outcomes.items() if name != "201") if instances else None
    pictures = series[WATCHED].pictures_per_second if WATCHED in series else None
    most = _FULL_POWER if claims_contestant(_FULL_POWER) in series else _QUICK_POWER
    few, many = claims_contestant(_SMALL_POWER), claims_contestant(most)
    short = "" if most == _FULL_POWER else f" (only a full run goes to {claims_contestant(_FULL_POWER)})"
    spread = f"{LOCK_PER_CLAIM}, 1,000 coupons"
    return [
        Figure("hot coupon, claims/s ÷ floor requests/s", ratio(hot, FLOOR), 0.45, 0.70),
        Figure(
            "server CPU per claim ÷ floor CPU per request",
            ratio(hot, FLOOR, lambda one: one.cpu_ms("server")),
            2.0,
            1.4,
            at_most=True,
        ),
        Figure("hot coupon ÷ lock per claim", ratio(hot, LOCK_PER_CLAIM), 10, 14),
        Figure("hot coupon ÷ FOR UPDATE per claim", ratio(hot, FOR_UPDATE), 5, 8),
        Figure("1,000 coupons ÷ lock per claim, same spread", ratio(variant("1,000 coupons"), spread), 5, 8),
        Figure("hot coupon, 5 masters ÷ 1 master", ratio(variant("5 masters"), variant("1 master")), 0.85, 0.95),
        Figure("3 instances, slowest's share ÷ fair share", instances.slowest_share if instances else None, 0.7, 0.9),
        Figure(
            "3 instances, p99 ÷ p99 of one",
            ratio(variant("3 instances"), hot, lambda one: one.p99_ms),
            3,
            2,
            at_most=True,
        ),
        Figure("3 instances, refused with stock left", refused, 0, 0, at_most=True),
        Figure("sold out, answers/s ÷ floor", ratio(variant("sold out"), FLOOR), 0.60, 0.80),
        Figure("50 viewers of the console, claims/s ÷ without", ratio(WATCHED, UNWATCHED), 0.95, 0.98),
        Figure("pictures a second for each of 50 viewers", pictures, 9, 10),
        Figure(f"claims/s with {many} ÷ with {few}{short}", ratio(many, few), 0.85, 0.95),
    ]
