"""The figures that the service is judged by: ratios of medians within one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.contestants import (
    CODES,
    DEFAULT_STRATEGY,
    EIGHT,
    FLOOR,
    FOR_UPDATE,
    KEYED,
    LOCK_PER_CLAIM,
    ONE,
    PLAIN,
    QUEUE,
    QUOTA,
    ROW_LOCK,
    RULES,
    THREE,
    TOKEN_NEW,
    TOKEN_SEEN,
    UNWATCHED,
    WATCHED,
    claims_contestant,
    strategy_contestant,
    workers_contestant,
)
from tests.bench.rounds import Series

_QUICK_POWER, _FULL_POWER, _SMALL_POWER = 5, 7, 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the judgement. `goal` and `aim` are bounds from below, or from above where `at_most`."""

    name: str
    measured: float | None
    goal: float
    aim: float
    at_most: bool = False

    def reaches(self, bound: float) -> bool:
        """Whether what was measured keeps to a bound."""
        if self.measured is None:
            return False
        return self.measured <= bound if self.at_most else self.measured >= bound

    @property
    def is_reached(self) -> bool | None:
        """Whether it keeps to the goal; None if it was not measured."""
        return None if self.measured is None else self.reaches(self.goal)


def judged_figures(series: Mapping[str, Series]) -> list[Figure]:
    """What the rounds come to. A figure whose contestants were not measured has no value.

    Args:
        series: by the contestant's name.
    """
    judged = _Judged(series)
    return [*judged.beside_others(), *judged.of_instances(), *judged.of_features(), *judged.of_growth()]


def _variant(name: str, strategy: str = DEFAULT_STRATEGY) -> str:
    return strategy_contestant(strategy, name)


def _rate(one: Series) -> float:
    return one.rate


def _p99(one: Series) -> float:
    return one.p99_ms


def _server_cpu(one: Series) -> float:
    return one.cpu_ms("server")


@dataclass(frozen=True, slots=True)
class _Judged:
    series: Mapping[str, Series]

    def ratio(self, of: str, to: str, figure: Callable[[Series], float] = _rate) -> float | None:
        if of not in self.series or to not in self.series:
            return None
        below = figure(self.series[to])
        return figure(self.series[of]) / below if below else None

    def beside_others(self) -> list[Figure]:
        hot, spread = _variant(""), f"{LOCK_PER_CLAIM}, 1,000 coupons"
        cpu = self.ratio(hot, FLOOR, _server_cpu)
        return [
            Figure("hot coupon, claims/s ÷ floor requests/s", self.ratio(hot, FLOOR), 0.45, 0.70),
            Figure("server CPU per claim ÷ floor CPU per request", cpu, 1.8, 1.4, at_most=True),
            Figure("sold out, answers/s ÷ floor", self.ratio(_variant("sold out"), FLOOR), 0.65, 0.85),
            Figure("hot coupon ÷ lock per claim", self.ratio(hot, LOCK_PER_CLAIM), 10, 14),
            Figure("hot coupon ÷ FOR UPDATE per claim", self.ratio(hot, FOR_UPDATE), 5, 8),
            Figure("1,000 coupons ÷ lock per claim, same spread", self.ratio(_variant("1,000 coupons"), spread), 5, 8),
            Figure(
                "hot coupon, 5 masters ÷ 1 master",
                self.ratio(_variant("5 masters"), _variant("1 master")),
                0.85,
                0.95,
            ),
        ]

    def of_instances(self) -> list[Figure]:
        one, three, eight = _variant(ONE), _variant(THREE), _variant(EIGHT)
        row_lock = _variant(THREE, ROW_LOCK)
        many = self.ratio(_variant(f"1,000 coupons, {THREE}"), _variant(f"1,000 coupons, {ONE}"))
        slowest = self.series[three].slowest_share if three in self.series else None
        cpu, p99 = self.ratio(three, one, _server_cpu), self.ratio(three, one, _p99)
        one_worker, two_workers, four_workers = map(workers_contestant, (1, 2, 4))
        return [
            Figure("3 instances ÷ 1, claims/s", self.ratio(three, one), 0.75, 0.95),
            Figure("3 instances ÷ 1, server CPU per claim", cpu, 1.8, 1.3, at_most=True),
            Figure("3 instances ÷ 1, p99", p99, 1.8, 1.3, at_most=True),
            Figure("3 instances, slowest's share ÷ equal share", slowest, 0.85, 0.95),
            Figure("3 instances ÷ row_lock with 3 instances", self.ratio(three, row_lock), 0.85, 1.05),
            # Three to eight: fewer milliseconds for a claim are more claims for a second of CPU.
            Figure("8 instances ÷ 3, claims per server CPU", self.ratio(three, eight, _server_cpu), 0.7, 0.9),
            Figure("1,000 coupons, 3 instances ÷ 1", many, 0.8, 1.0),
            Figure("2 workers ÷ 1", self.ratio(two_workers, one_worker), 0.9, 1.2),
            Figure("4 workers ÷ 1", self.ratio(four_workers, one_worker), 0.75, 1.0),
            Figure("503s and other refusals with stock left, in all", self.refused(), 0, 0, at_most=True),
        ]

    def refused(self) -> int | None:
        """Of all contestants of the service that nobody sold out."""
        plenty = [
            one
            for one in self.series.values()
            if one.contestant.servers[0].kind == "claimsvc" and not one.contestant.sold_out
        ]
        done = {"201", "202"}
        return sum(n for one in plenty for name, n in one.outcomes.items() if name not in done) if plenty else None

    def of_features(self) -> list[Figure]:
        bounds = {
            KEYED: (0.70, 0.85),
            QUOTA: (0.70, 0.85),
            CODES: (0.70, 0.85),
            RULES: (0.70, 0.85),
            QUEUE: (0.80, 1.0),
            TOKEN_SEEN: (0.70, 0.85),
            TOKEN_NEW: (0.45, 0.60),
        }
        return [Figure(f"{name} ÷ {PLAIN}", self.ratio(name, PLAIN), *bounds[name]) for name in bounds]

    def of_growth(self) -> list[Figure]:
        pictures = self.series[WATCHED].pictures_per_second if WATCHED in self.series else None
        most = _FULL_POWER if claims_contestant(_FULL_POWER) in self.series else _QUICK_POWER
        few, many = claims_contestant(_SMALL_POWER), claims_contestant(most)
        short = "" if most == _FULL_POWER else f" (only a full run goes to {claims_contestant(_FULL_POWER)})"
        return [
            Figure("50 viewers of the console, claims/s ÷ without", self.ratio(WATCHED, UNWATCHED), 0.95, 0.98),
            Figure("pictures a second for each of 50 viewers", pictures, 9, 10),
            Figure(f"claims/s with {many} ÷ with {few}{short}", self.ratio(many, few), 0.85, 0.95),
        ]
