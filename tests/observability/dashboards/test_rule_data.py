"""Every rule, evaluated by a real Prometheus that watches real instances in trouble."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.observability.dashboards.contention import Seen
from tests.observability.dashboards.prometheus import Sample, needs_prometheus
from tests.observability.dashboards.watched_cluster import on_the_cluster
from tests.support.alert_rules import alerts, recordings

pytestmark = [pytest.mark.slow, needs_prometheus, *on_the_cluster(timeout_seconds=180)]

REPORT = Path("build/observability/rules.txt")

# The least and the most that a rule may record, by how its name ends.
_PLAUSIBLE = {
    r":ratio\w*": (0, 1),
    r":(rate|increase)\w+": (0, 1e9),
    r":p99_5m": (0, 30),
    r":left30d": (-1000, 1),
    r":min": (0, 1e7),
    r":max": (0, 1e5),
}


async def test_every_rule_is_evaluated_and_has_plausible_data(seen: Seen) -> None:
    """What it saw is in build/observability/rules.txt.

    An alert has no data unless something is wrong, so for alerts it is asked of all that they are made from.
    """
    _report({**seen.recorded, **seen.firing})
    assert set(seen.rules) == set(alerts()) | set(recordings())
    assert [rule for rule in seen.rules.values() if rule["health"] != "ok"] == []
    assert seen.missing == []
    assert [
        f"{name} {sample}"
        for name, samples in seen.recorded.items()
        for sample in samples
        if not _is_plausible(name, sample)
    ] == []


def _is_plausible(name: str, sample: Sample) -> bool:
    [(least, most)] = [bounds for ending, bounds in _PLAUSIBLE.items() if re.search(f"{ending}$", name)]
    return not sample.is_number or least <= sample.value <= most


def _report(answers: Mapping[str, Sequence[Sample]]) -> None:
    """Leave the list of rules with their values for whoever wants to read it."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, samples in answers.items():
        lines += [name, *(f"    {dict(sample.labels)} {sample.value:g}" for sample in samples or ())]
        lines += [] if samples else ["    nothing: it does not fire"]
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
