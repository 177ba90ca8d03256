"""Every rule, evaluated by a real Prometheus that watches real instances in trouble."""

import re
from pathlib import Path

import pytest

from tests.observability.contention import contended_stage
from tests.observability.prometheus import Sample, needs_prometheus
from tests.observability.rules import alerts, quickened, recordings

pytestmark = [needs_prometheus, pytest.mark.timeout(180)]

REPORT = Path("build/observability/rules.txt")

_SERIES = re.compile(r"(?<![\w:])(?:claimsvc_\w+|job\w*:[\w:]+|up)(?![\w:])")

# The least and the most that a rule may record, by how its name ends.
_PLAUSIBLE = {
    r":ratio\w*": (0, 1),
    r":(rate|increase)\w+": (0, 1e9),
    r":p99_5m": (0, 30),
    r":left30d": (-1000, 1),
    r":min": (0, 1e7),
}


async def test_every_rule_is_evaluated_and_has_plausible_data(tmp_path: Path) -> None:
    """What it saw is in build/observability/rules.txt.

    An alert has no data unless something is wrong, so for alerts it is asked of all that they are made from.
    """
    async with contended_stage(rule_files=quickened(tmp_path)) as watched:
        for name in recordings():
            await watched.prometheus.until(f"{name} > -1000000")
        recorded = {name: await watched.query(name) for name in recordings()}
        told = {rule["name"]: rule for rule in await watched.prometheus.rules()}
        firing = {name: await watched.query(told[name]["query"]) for name in alerts()}
        missing = [
            f"{series} of {name}"
            for name, rule in alerts().items()
            for series in set(_SERIES.findall(rule["expr"]))
            if not await watched.query(f"count({series})")
        ]
    _report(recorded | firing)
    assert set(told) == set(alerts()) | set(recordings())
    assert [rule for rule in told.values() if rule["health"] != "ok"] == []
    assert missing == []
    assert [
        f"{name} {sample}" for name in recorded for sample in recorded[name] if not _is_plausible(name, sample)
    ] == []


def _is_plausible(name: str, sample: Sample) -> bool:
    [(least, most)] = [bounds for ending, bounds in _PLAUSIBLE.items() if re.search(f"{ending}$", name)]
    return not sample.is_number or least <= sample.value <= most


def _report(answers: dict[str, list[Sample]]) -> None:
    """Leave the list of rules with their values for whoever wants to read it."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, samples in answers.items():
        lines += [name, *(f"    {dict(sample.labels)} {sample.value:g}" for sample in samples or ())]
        lines += [] if samples else ["    nothing: it does not fire"]
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
