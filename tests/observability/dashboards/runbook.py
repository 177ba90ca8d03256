"""The runbook, as far as tests hold it to what it names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.alert_rules import DASHBOARDS

RUNBOOK = DASHBOARDS / "RUNBOOK.md"

_PANEL = re.compile(r"`(Overview|Claims|Lock contention|Dependencies) / ([^`]+)`")
_ALERT = re.compile(r"\bClaimsvc\w+")


@dataclass(frozen=True, slots=True)
class Incident:
    """A row of the table of incidents.

    Args:
        panels: that show it, as `dashboard / panel`.
        alerts: that fire.
    """

    panels: Sequence[str]
    alerts: Sequence[str]


def entries() -> dict[str, str]:
    """What is said under the heading of each alert."""
    parts = re.split(r"^#{2,3} (.*)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True) if _ALERT.fullmatch(title)}


def incidents() -> dict[str, Incident]:
    """The incidents by name."""
    found = {}
    for line in RUNBOOK.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and _ALERT.search(cells[2]):
            found[cells[0]] = Incident(_panels_of(cells[1]), _ALERT.findall(cells[2]))
    return found


def panels_named() -> set[str]:
    """Every panel that is named anywhere, as `dashboard / panel`."""
    return set(_panels_of(RUNBOOK.read_text(encoding="utf-8")))


def _panels_of(text: str) -> list[str]:
    text = re.sub(r"\s+", " ", text)
    return [f"{dashboard.lower().replace(' ', '-')} / {panel}" for dashboard, panel in _PANEL.findall(text)]
