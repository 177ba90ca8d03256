"""Alerts and recording rules: promtool's own tests of them, and that none comes without its tests and its runbook."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from claimsvc.__main__ import app
from tests.observability.dashboards.panels import panels
from tests.observability.dashboards.prometheus import needs_prometheus
from tests.observability.dashboards.runbook import RUNBOOK, entries, incidents, panels_named
from tests.support.alert_rules import (
    RULE_FILES,
    TEST_FILES,
    alerts,
    quickened,
    quickened_expression,
    recordings,
    unit_tests,
)

_SEVERITIES = {"page", "ticket", "info"}
# Prometheus's external labels make links absolute; without them they are relative.
_RUNBOOK = '{{ or $externalLabels.runbook_url "dashboards/RUNBOOK.md" }}'
_GRAFANA = "{{ $externalLabels.grafana_url }}"
_DASHBOARDS = "|".join(("claimsvc-overview", "claimsvc-claims", "claimsvc-lock-contention", "claimsvc-dependencies"))


def promtool(*arguments: str | Path) -> None:
    checked = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_prometheus
def test_prometheus_takes_the_rules_and_those_that_are_in_haste(tmp_path: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    promtool("check", "rules", "--lint=all", "--lint-fatal", *quickened(tmp_path))


@needs_prometheus
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_are_silent_when_they_should(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_is_tested_firing_and_in_a_scenario_in_which_it_stays_silent(alert: str) -> None:
    scenarios = [test.fires for test in unit_tests() if test.alert == alert]
    assert any(any(fires) for fires in scenarios), "no scenario makes it fire"
    assert any(not all(fires) for fires in scenarios if any(fires)), "it fires at once, or nobody looked before"
    assert any(not any(fires) for fires in scenarios), "no scenario shows what it must not fire for"


def test_only_alerts_that_exist_are_tested() -> None:
    assert {test.alert for test in unit_tests()} <= set(alerts())


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_says_how_bad_it_is_what_was_seen_and_where_to_look(alert: str) -> None:
    assert re.fullmatch(r"Claimsvc([A-Z][a-z]+)+", alert)
    labels, told = alerts()[alert]["labels"], alerts()[alert]["annotations"]
    assert labels["severity"] in _SEVERITIES
    assert told["summary"]
    assert "{{" not in told["summary"], "one alert has one summary; what differs is for the description"
    assert "$value" in told["description"] or alert in {"ClaimsvcInstanceDown", "ClaimsvcAbsent"}
    assert told["runbook_url"] == f"{_RUNBOOK}#{alert.lower()}"
    assert told["dashboard_url"].startswith(_GRAFANA)
    dashboard = told["dashboard_url"].removeprefix(_GRAFANA)
    assert re.fullmatch(rf"/d/({_DASHBOARDS})(\?var-(coupon|instance)={{{{ \$labels\.\3 }}}})?", dashboard)


def test_every_alert_has_its_entry_in_the_runbook_and_every_entry_its_alert() -> None:
    assert sorted(entries()) == sorted(alerts())


@pytest.mark.parametrize("alert", alerts())
def test_every_entry_of_the_runbook_says_what_it_means_what_to_look_at_and_what_to_do(alert: str) -> None:
    entry, severity = entries()[alert], alerts()[alert]["labels"]["severity"]
    for part in (f"**Means** *{severity}*", "**Look at**", "**Do**"):
        assert part in entry
    if severity == "page":
        assert re.match(r"\s*\*\*Type\*\* `(claimsvc|curl) [^`]+`", entry), "a page begins with the command to type"


def test_the_runbook_names_only_panels_that_are_there() -> None:
    assert sorted(panels_named() - {str(panel) for panel in panels()}) == []


def test_every_incident_of_the_runbook_names_panels_that_show_it_and_alerts_that_fire() -> None:
    assert len(incidents()) == 5
    for incident in incidents().values():
        assert incident.panels
        assert set(incident.alerts) <= set(alerts())


def test_every_command_of_the_runbook_is_one_that_there_is_with_the_options_that_it_has() -> None:
    text = re.sub(r"\s+", " ", RUNBOOK.read_text())
    found = set(re.findall(r"\bclaimsvc ([a-z][^`]*)`", text))
    assert len(found) > 5
    for words in found:
        command, given = get_command(app), words.split()
        path = []
        while given and given[0] in getattr(command, "commands", {}):
            path.append(given.pop(0))
            command = command.commands[path[-1]]  # type: ignore[attr-defined]
        assert path, f"there is no `claimsvc {words}`"
        options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in given if word.startswith("--")} <= options, f"`claimsvc {words}`"


def test_every_rule_that_is_recorded_is_used() -> None:
    asked = "\n".join(rule["expr"] for rule in (*alerts().values(), *recordings().values()))
    asked += RUNBOOK.read_text()
    assert [name for name in recordings() if not re.search(rf"{re.escape(name)}(?![\w:])", asked)] == []


def test_haste_divides_every_duration_of_an_expression_and_nothing_else() -> None:
    said = quickened_expression('job:a:rate5m > 0.5 and x{y="5m"} unless x offset 15m')
    assert said == 'job:a:rate5m > 0.5 and x{y="5m"} unless x offset 15000ms'
    assert quickened_expression("rate(x[90s])") == "rate(x[2500ms])"
    assert quickened_expression("rate(x[90s])", haste=10) == "rate(x[9000ms])"
    said = quickened_expression("max_over_time(x[30m:1m]) and rate(z[3d]) > 900")
    assert said == "max_over_time(x[30000ms:1000ms]) and rate(z[4320000ms]) > 900"
