"""Helm's own engine as a program (helm-python-sdk is its Go code as a library): a job in, a result out, both as JSON.

A process of its own, because Go's runtime starts threads and takes signals, which a test's process must not have.
"""

import json
import sys
from typing import Any

import helm_python
from helm_python.errors import HelmError


def main() -> None:
    """Do what standard input says: render a chart with some values, or lint it."""
    job: dict[str, Any] = json.load(sys.stdin)
    try:
        result = lint(**job) if job.pop("lint") else render(**job)
    except HelmError as error:
        result = {"error": str(error)}
    json.dump(result, sys.stdout)


def render(chart: str, values: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
    """What every template becomes, by its path."""
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        return {"files": loaded.render(values, name=name, namespace=namespace)}


def lint(chart: str, values: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
    """What `helm lint --strict` finds."""
    report = helm_python.lint(chart, values, strict=True, namespace=namespace)
    return {"findings": [finding for finding in report["messages"] if finding["severity"] > 1] + report["errors"]}


if __name__ == "__main__":
    main()
