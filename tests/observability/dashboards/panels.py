"""The dashboards as they are committed: their panels, and the expressions of each."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "dashboards" / "grafana"

# What Grafana puts in the place of its variables when everything is chosen.
_EVERYTHING = {"$job": ".+", "$instance": ".+", "$coupon": ".+"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of one dashboard."""

    dashboard: str
    model: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.model["title"])

    @property
    def unit(self) -> str:
        """That of its values: of a heatmap, that of its cells."""
        return str(self.model["fieldConfig"]["defaults"]["unit"])

    @property
    def targets(self) -> list[dict[str, Any]]:
        return list(self.model["targets"])

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.title}"


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels() -> Iterator[Panel]:
    """Every panel that has queries."""
    for name, dashboard in dashboards().items():
        for model in models(dashboard):
            if model["type"] != "row":
                yield Panel(name.removesuffix(".json"), model)


def models(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel and row of a dashboard. A row that is collapsed has its panels in itself."""
    for model in dashboard["panels"]:
        yield model
        yield from model.get("panels") or ()


def marks() -> list[str]:
    """The expression of each dashboard's annotation."""
    return [mark["target"]["expr"] for each in dashboards().values() for mark in each["annotations"]["list"]]


def substituted(expression: str, *, rate_interval: str, time_range: str) -> str:
    """The expression as Grafana sends it when all is chosen in every variable.

    Raises:
        ValueError: it has a variable that no dashboard has.
    """
    values = _EVERYTHING | {"$__rate_interval": rate_interval, "$__range": time_range}
    for variable in sorted(values, key=len, reverse=True):
        expression = expression.replace(variable, values[variable])
    if left := re.search(r"\$\w+", expression):
        raise ValueError(f"{left[0]} in {expression}")
    return expression
