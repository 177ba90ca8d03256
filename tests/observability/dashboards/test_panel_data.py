"""Every expression of every panel, asked of a real Prometheus that watches real instances in trouble."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dashboards.panels import COUNT
from tests.observability.dashboards.contention import DRIFTING, HELD, HOT, PAUSED, QUEUED, SOLD_OUT, Seen
from tests.observability.dashboards.panels import Panel
from tests.observability.dashboards.prometheus import Sample, needs_prometheus
from tests.observability.dashboards.watched_cluster import on_the_cluster

pytestmark = [pytest.mark.slow, needs_prometheus, *on_the_cluster(timeout_seconds=180)]

REPORT = Path("build/observability/expressions.txt")

# The least and the most that a value may be, by its unit; what a panel knows better is below.
_PLAUSIBLE = {
    "s": (0, 30),
    "percentunit": (0, 1.01),
    "reqps": (0, 20_000),
    "ops": (0, 50_000),
    COUNT: (0, 20_000),
    "bytes": (20e6, 2e9),
    "none": (0, 100),
}
_PLAUSIBLE_IN = {
    "Availability budget left": (-1000, 1),
    "Latency budget left": (-100, 1),
    "Burn rate": (-0.01, 1000),
    "Availability budget of 30 days left": (-1000, 1),
    "Latency budget of 30 days left": (-100, 1),
    "Balancer: budget of 30 days left": (-1000, 1),
    "Claims: budget of 30 days left": (-1000, 1),
    "Latency: budget of 30 days left": (-100, 1),
    "Claims, if above 1": (-0.01, 1000),
    "Units left": (0, 10_000_000),
    "Time until sold out": (0, 1e8),
    "Time since start": (1, 600),
    "Share of time held, by coupon": (0, 100),
    "Share of time held, by instance": (0, 100),
    "Masters that may still fail": (-2, 1),
    "Batch size": (1, 256),
    "Memory by master": (1e-6, 0.5),  # of the machine, for want of a maxmemory
    "Redis memory used": (1e-6, 0.5),
    "Youngest instance": (1, 600),
    "Longest wait, of what is allowed": (0, 1.5),  # whoever expires is noticed a moment later
}

NOT_FOR_SOLD_OUT = {
    *("Longest wait", "Wait: p99 by coupon", "Busy attempts by coupon", "Refused, though no known instance holds it"),
    *("Retries by coupon", "Gave up, by coupon"),
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


def answers(seen: Seen) -> list[Answer]:
    return [Answer(panel, expression, samples) for panel, expression, samples in seen.panels]


def report(found: Sequence[Answer]) -> None:
    """Leave the list of expressions with their values for whoever wants to read it."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(map(str, found)), encoding="utf-8")


def dashboard(seen: Seen, name: str) -> dict[str, Answer]:
    """The answers of a dashboard by the titles of its panels. Of several lines of one panel the last counts."""
    return {answer.panel.title: answer for answer in answers(seen) if answer.panel.dashboard == name}


async def test_every_expression_of_every_panel_has_data_that_is_plausible(seen: Seen) -> None:
    """What it saw is in build/observability/expressions.txt."""
    found = answers(seen)
    report(found)
    assert [str(answer) for answer in found if not answer.values] == []
    assert [str(answer) for answer in found if not answer.is_plausible] == []


async def test_what_is_counted_is_shown_in_whole_numbers(seen: Seen) -> None:
    counted = [
        answer for answer in answers(seen) if answer.panel.unit == COUNT and answer.panel.model["type"] != "heatmap"
    ]
    assert counted
    assert [str(answer) for answer in counted if any(not value.is_integer() for value in answer.values)] == []


async def test_the_marks_of_deploys_show_the_instances_that_have_just_begun(seen: Seen) -> None:
    assert [[sample.value for sample in each] for each in seen.marks] == [[3]] * 4


async def test_the_dashboard_of_locks_names_who_is_contended_and_why(seen: Seen) -> None:
    lock = dashboard(seen, "lock-contention")
    assert lock["Busy attempts by coupon"].of(coupon=HELD) > 0
    assert lock["Gave up, by coupon"].of(coupon=HELD) == lock["Gave up, by coupon"].of() > 0
    assert lock["Gave up with stock left"].of() > 0
    assert lock["Leases lost"].of() > 0
    assert lock["Hold: p99 by coupon"].of(coupon=HOT) > 0
    assert lock["Hints"].of(result="sent") > 0
    assert [each.labels["coupon"] for each in lock["Longest wait"].samples] in ([HELD], [HOT])
    assert lock["Longest wait"].of() > 0.5


async def test_a_lock_that_nobody_known_holds_is_told_from_one_that_is_contended(seen: Seen) -> None:
    lock = dashboard(seen, "lock-contention")
    refused = lock["Refused, though no known instance holds it"]
    # What counted under `other` before the coupon was among the busiest is still in the window on a slow machine.
    assert {each.labels["coupon"] for each in refused.samples} in ({HELD}, {HELD, "other"})
    assert refused.of() > 0.5
    assert lock["Locks held by no known instance"].of() == len(refused.samples)


async def test_a_coupon_that_is_sold_out_is_contended_nowhere(seen: Seen) -> None:
    """A stranger holds its lock all the while, and its claims ask for none."""
    of_it = [
        str(answer)
        for title, answer in dashboard(seen, "lock-contention").items()
        if title in NOT_FOR_SOLD_OUT and not math.isnan(answer.of(coupon=SOLD_OUT))
    ]
    assert of_it == []
    assert not dashboard(seen, "claims")["Failed claims by coupon"].of(coupon=SOLD_OUT) > 0


async def test_the_dashboard_of_dependencies_says_what_there_is_and_who_sees_it(seen: Seen) -> None:
    dependencies = dashboard(seen, "dependencies")
    assert dependencies["Instances up"].of() == 3
    assert dependencies["Instances missing"].of() == 0
    assert dependencies["Restarts"].of() == 0
    assert dependencies["Masters that may still fail"].of() == 0
    masters = dependencies["Masters up, as each instance sees them"].samples
    assert sorted(each.value for each in masters) == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert len({each.labels["master"] for each in masters if not each.value}) == 1
    assert len({each.labels["instance"] for each in masters if not each.value}) == 3
    assert len(dependencies["Memory by master"].values) == 3
    assert dependencies["Drift of counters"].of(coupon=DRIFTING) > 0


async def test_the_dashboard_of_claims_says_what_is_hot_what_is_gone_and_what_fails(seen: Seen) -> None:
    claims = dashboard(seen, "claims")
    assert claims["Stock left"].of(coupon=SOLD_OUT) == 0
    assert claims["Claims by coupon"].of(coupon=HOT) > 1
    assert claims["Failed claims by coupon"].of(coupon=HELD, outcome="lock-busy") > 0
    assert claims["Availability"].of() < 1


async def test_a_coupon_that_is_paused_is_shown_and_does_not_count_as_failing(seen: Seen) -> None:
    claims = dashboard(seen, "claims")
    assert claims["Claims by outcome"].of(outcome="paused") > 1
    [refused] = claims["Refused by their rules, by coupon"].samples
    assert (refused.labels["coupon"], refused.labels["outcome"]) == (PAUSED, "paused")
    assert not claims["Claims by outcome"].of(outcome="internal-error") > 0  # there may be none at all


async def test_a_queue_is_shown_with_what_waits_how_fast_it_is_started_and_what_expires(seen: Seen) -> None:
    claims = dashboard(seen, "claims")
    # Whatever instance says it: all read the same, and it is not added up.
    assert 5 < claims["Tickets waiting"].of(coupon=QUEUED) < 100
    assert 1 < claims["Tickets started"].of(coupon=QUEUED) < 6
    assert 2 < claims["Longest wait in a queue"].of(coupon=QUEUED) < 6
    assert 0.5 < claims["Longest wait, of what is allowed"].of(coupon=QUEUED) < 1.5
    assert claims["Ends of tickets"].of(end="expired") > 0.5
    assert claims["Ends of tickets"].of(end="claimed") > 1
    assert claims["Time without a start"].of(coupon=QUEUED) < 5
    assert claims["Dead letters"].of(kind="ticket") == claims["Queues stopped, by reason"].of() == 0
    assert claims["Claims by outcome"].of(outcome="queued") > 5
    assert {each.labels["coupon"] for each in seen.recorded["job_coupon:claimsvc_tickets_expired:ratio_rate90s"]} >= {
        QUEUED
    }
