"""The rule files of `dashboards/rules`, as they are and for the impatient."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
RULES = DASHBOARDS / "rules"
RULE_FILES = tuple(sorted(RULES.glob("*.yml")))
TEST_FILES = tuple(sorted((RULES / "tests").glob("*.yml")))

HASTE = 60
"""How much faster the quickened rules are: an hour is a minute, and a minute is a second."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+)(ms|[smhd])")
# The durations of an expression: of `[5m]`, `[30m:1m]` and `offset 5m`. The names of recording rules have some as well.
_WINDOW_OF_SECONDS = re.compile(r"\[(\d+)s\]")
_LEAST_WINDOW_SECONDS = 2.5
_IN_EXPRESSION = re.compile(r"\[[\dsmhd:]+\]|\boffset \w+")


@dataclass(frozen=True, slots=True)
class UnitTest:
    """What one scenario of a test file asks of one alert: whether it fires, at each moment that is looked at."""

    scenario: str
    alert: str
    fires: tuple[bool, ...]


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """The alerting rules by name."""
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


@cache
def recordings() -> dict[str, dict[str, Any]]:
    """The recording rules by name."""
    return {rule["record"]: rule for rule in _rules() if "record" in rule}


@cache
def unit_tests() -> list[UnitTest]:
    """What promtool is asked to check of alerts."""
    found = []
    for path in TEST_FILES:
        for scenario in yaml.safe_load(path.read_text())["tests"]:
            moments: dict[str, list[bool]] = {}
            for moment in scenario.get("alert_rule_test", ()):
                moments.setdefault(moment["alertname"], []).append(bool(moment.get("exp_alerts")))
            found += [UnitTest(scenario["name"], alert, tuple(fires)) for alert, fires in moments.items()]
    return found


def quickened(folder: Path, haste: float = HASTE) -> list[Path]:
    """The rule files with every duration divided: windows, offsets, steps, how long an alert waits, how often it looks.

    What is compared with them stays: 0.5 s of waiting for a lock are the same half of a second. So a rule says the same
    of an incident as the real one would, of one that lasts longer.

    Args:
        folder: where they are written.
        haste: what durations are divided by. A window of 5 minutes must still see some scrapes.
    """
    written = []
    for path in RULE_FILES:
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            if "interval" in group:
                group["interval"] = _shorten(group["interval"], haste)
            for rule in group["rules"]:
                rule["expr"] = quickened_expression(rule["expr"], haste)
                if "for" in rule:
                    rule["for"] = _shorten(rule["for"], haste)
        written.append(folder / path.name)
        written[-1].write_text(yaml.safe_dump(content, sort_keys=False))
    return written


def quickened_expression(expression: str, haste: float = HASTE) -> str:
    """An expression with its windows, steps and offsets divided. A window of seconds keeps room for two scrapes."""

    def shortened(found: re.Match[str]) -> str:
        if window := _WINDOW_OF_SECONDS.fullmatch(found[0]):
            return f"[{max(_LEAST_WINDOW_SECONDS, int(window[1]) / haste) * 1000:.0f}ms]"
        return _shorten(found[0], haste)

    return _IN_EXPRESSION.sub(shortened, expression)


def _shorten(text: str, haste: float) -> str:
    return _DURATION.sub(lambda found: f"{max(1, round(int(found[1]) * _UNITS[found[2]] * 1000 / haste))}ms", text)


@cache
def _rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text()) for path in RULE_FILES]
    return [rule for content in files for group in content["groups"] for rule in group["rules"]]
