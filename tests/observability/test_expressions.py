"""Every expression of every panel, asked of a real Prometheus that watches real instances in trouble."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.observability.contention import DRIFTING, HELD, HOT, SOLD_OUT, contended_stage
from tests.observability.panels import Panel, marks, panels, substituted
from tests.observability.prometheus import Sample, needs_prometheus
from tests.observability.stage import WatchedStage

pytestmark = [needs_prometheus, pytest.mark.timeout(180)]

REPORT = Path("build/observability/expressions.txt")

# The least and the most that a value may be, by its unit; what a panel knows better is below.
_PLAUSIBLE = {
    "s": (0, 30),
    "percentunit": (0, 1.01),
    "reqps": (0, 20_000),
    "ops": (0, 50_000),
    "short": (0, 20_000),
    "bytes": (20e6, 2e9),
    "none": (0, 100),
}
_PLAUSIBLE_IN = {
    "Availability budget left": (-1000, 1),
    "Latency budget left": (-100, 1),
    "Burn rate": (-0.01, 1000),
    "Units left": (0, 10_000_000),
    "Time until sold out": (0, 1e8),
    "Time since start": (1, 600),
    "Share of time held, by coupon": (0, 100),
    "Share of time held, by instance": (0, 100),
    "Masters that may still fail": (-2, 1),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said to one expression of a panel."""

    panel: Panel
    expression: str
    samples: Sequence[Sample]

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples if sample.is_number]

    @property
    def is_plausible(self) -> bool:
        least, most = _PLAUSIBLE_IN.get(self.panel.title, _PLAUSIBLE[self.panel.unit])
        return all(least <= value <= most for value in self.values)

    def of(self, **labels: str) -> float:
        """The greatest value of the series with these labels; NaN if there is none."""
        found = [each.value for each in self.samples if labels.items() <= each.labels.items() and each.is_number]
        return max(found, default=math.nan)

    def __str__(self) -> str:
        head = f"{self.panel} [{self.panel.unit}]\n  {self.expression}\n"
        return head + "".join(f"    {dict(sample.labels)} {sample.value:g}\n" for sample in self.samples)


async def ask_all(watched: WatchedStage) -> list[Answer]:
    """The answers to every expression of every panel, at about the same moment."""
    answers = []
    for panel in panels():
        for target in panel.targets:
            expression = substituted(target["expr"], rate_interval="15s", time_range="1m")
            answers.append(Answer(panel, expression, await watched.query(expression)))
    return answers


def report(answers: Sequence[Answer]) -> None:
    """Leave the list of expressions with their values for whoever wants to read it."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(map(str, answers)), encoding="utf-8")


async def test_every_expression_of_every_panel_has_data_that_is_plausible() -> None:
    """What it saw is in build/observability/expressions.txt."""
    async with contended_stage() as watched:
        answers = await ask_all(watched)
        deploys = [await watched.query(substituted(mark, rate_interval="", time_range="")) for mark in marks()]
    report(answers)
    assert [str(answer) for answer in answers if not answer.values] == []
    assert [str(answer) for answer in answers if not answer.is_plausible] == []
    assert [[sample.value for sample in each] for each in deploys] == [[2]] * 3, "both instances have just begun"

    by_title = {f"{answer.panel}": answer for answer in answers}
    lock = {title.removeprefix("lock-contention / "): each for title, each in by_title.items()}
    assert lock["Busy attempts by coupon"].of(coupon=HELD) > 0
    assert lock["Gave up, by coupon"].of(coupon=HELD) == lock["Gave up, by coupon"].of() > 0
    assert lock["Leases lost, by coupon"].of() > 0
    assert lock["Hold: p99 by coupon"].of(coupon=HOT) > 0
    assert lock["Hints"].of(result="sent") > 0
    dependencies = {title.removeprefix("dependencies / "): each for title, each in by_title.items()}
    assert dependencies["Masters that may still fail"].of() == 0
    assert sorted(dependencies["Masters up"].values) == [0, 1, 1]
    assert dependencies["Drift of counters"].of(coupon=DRIFTING) == 7
    assert dependencies["Instances up"].of() == 2
    claims = {title.removeprefix("claims / "): each for title, each in by_title.items()}
    assert claims["Stock left"].of(coupon=SOLD_OUT) == 0
    assert claims["Claims by coupon"].of(coupon=HOT) > 1
    assert claims["Failed claims by coupon"].of(coupon=HELD, outcome="lock-busy") > 0
    assert claims["Availability"].of() < 1
