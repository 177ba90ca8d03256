"""Interleaved rounds, and what they come to."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.contestants import Contestant, Phase
from tests.bench.plan import Result
from tests.bench.testbed import Testbed

CPU_GROUPS = ("server", "postgres", "redis", "client")


@dataclass(frozen=True, slots=True)
class Series:
    """The rounds of one contestant. Every figure is the median of its rounds' figures."""

    contestant: Contestant
    results: list[Result] = field(default_factory=list)

    def _median(self, figure: Callable[[Result], float]) -> float:
        return median(map(figure, self.results))

    @property
    def rate(self) -> float:
        """Expected answers a second, of all instances."""
        return self._median(lambda result: sum(result.answered) / result.seconds)

    @property
    def p50_ms(self) -> float:
        return self._median(lambda result: result.p50_ms)

    @property
    def p99_ms(self) -> float:
        return self._median(lambda result: result.p99_ms)

    @property
    def max_ms(self) -> float:
        return self._median(lambda result: result.max_ms)

    def cpu_ms(self, group: str) -> float:
        """CPU time of a group of processes for each expected answer, in milliseconds."""
        return self._median(lambda result: result.cpu_seconds[group] * 1000 / max(sum(result.answered), 1))

    def cpu_share(self, group: str) -> float:
        """How much of one core a group of processes used."""
        return self._median(lambda result: result.cpu_seconds[group] / result.seconds)

    @property
    def slowest_share(self) -> float:
        """Answers of the slowest instance, against an equal share of all."""
        return self._median(lambda result: min(result.answered) * len(result.answered) / max(sum(result.answered), 1))

    @property
    def pictures_per_second(self) -> float:
        """Pictures of the console that each viewer had."""
        return self._median(lambda result: result.pictures_per_second)

    @property
    def outcomes(self) -> dict[str, int]:
        """All answers of all rounds, the most frequent first."""
        total: Counter[str] = Counter()
        for result in self.results:
            total.update(result.outcomes)
        return dict(total.most_common())


def rate_of_base(one: Series, phase: Phase, series: Sequence[Series]) -> float | None:
    """The rate that a contestant is compared with: that of its phase's base, in the same rounds."""
    bases = [each for each in series if each.contestant.name.startswith(phase.base)]
    alike = [each for each in bases if each.contestant.connections == one.contestant.connections]
    return (alike or bases)[0].rate if bases else None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is measured: rounds, and for each contestant in each round seconds, after a warm-up."""

    rounds: int
    warm_up_seconds: float
    seconds: float


def run_phase(testbed: Testbed, phase: Phase, pace: Pace, measured: Callable[[], None]) -> list[Series]:
    """Measure all contestants of a phase, each once in every round.

    Rounds are interleaved, so that a drift of the machine meets all alike; their order changes from round to round,
    so that none always follows the same other.

    Args:
        measured: called after each measurement.
    """
    testbed.prepare(phase.contestants)
    series = [Series(contestant) for contestant in phase.contestants]
    seconds = max(pace.seconds, phase.least_seconds)
    for number in range(pace.rounds):
        for one in random.Random(number).sample(series, len(series)):
            one.results.append(testbed.measure(one.contestant, warm_up_seconds=pace.warm_up_seconds, seconds=seconds))
            measured()
    return series
