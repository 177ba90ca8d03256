"""The Helm chart, rendered by Helm's own engine. As a program it writes the settings into its schema of values."""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest
import yaml

from claimsvc.config import Settings
from claimsvc.config.environment import RENAMED
from tests.deploy.files import ROOT

CHART = ROOT / "deploy/helm/claimsvc"
SCHEMA = CHART / "values.schema.json"

# Given by the chart itself, or kept in a Secret, or for tests alone.
NOT_IN_VALUES = {"database_url", "redis_urls", "admin_keys", "host", "port", "admin_port", "failpoints"}

NEEDED = (
    "needs the extra `chart`: pip install -e '.[chart]', as `make check` does; its Helm is for Linux on x86_64 alone"
)
needs_helm = pytest.mark.skipif(find_spec("helm_python") is None, reason=NEEDED)

Object = dict[str, Any]


class ChartError(Exception):
    """Helm refuses to render the chart; the message is its own."""


def values_of(name: str) -> dict[str, Any]:
    """The values in ci/NAME-values.yaml."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / f"ci/{name}-values.yaml").read_text())
    return loaded


def render(values: Mapping[str, Any]) -> list[Object]:
    """The objects of a release `demo` in the namespace `shop`.

    Raises:
        ChartError: the values are refused, or a template fails.
    """
    texts = [text for path, text in rendered_files(values).items() if path.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def rendered_files(values: Mapping[str, Any]) -> dict[str, str]:
    """What each template becomes. Raises as `render`."""
    files: dict[str, str] = _helm(values, lint=False)["files"]
    return files


def lint(values: Mapping[str, Any]) -> list[object]:
    """Warnings and errors of `helm lint --strict`."""
    findings: list[object] = _helm(values, lint=True)["findings"]
    return findings


def one(objects: list[Object], kind: str, name: str = "demo-claimsvc") -> Object:
    """The one object of that kind and name."""
    (found,) = [given for given in objects if (given["kind"], given["metadata"]["name"]) == (kind, name)]
    return found


def settings_schema() -> dict[str, Any]:
    """Each setting that values may hold, by its present and its former name, with its type and bounds."""
    schema: dict[str, Any] = {}
    for name, given in Settings.model_json_schema()["properties"].items():
        if name not in NOT_IN_VALUES:
            kept = {key: value for key, value in given.items() if key not in {"title", "default", "items"}}
            if kept.get("type") == "array":
                kept["type"] = "string"  # separated by commas
            schema[f"CLAIMSVC_{name.upper()}"] = kept
    for former, name in RENAMED.items():
        variable = f"CLAIMSVC_{name.upper()}"
        schema[f"CLAIMSVC_{former.upper()}"] = {**schema[variable], "description": f"The former name of {variable}."}
    return schema


def _helm(values: Mapping[str, Any], *, lint: bool) -> dict[str, Any]:
    job = {"chart": str(CHART), "values": values, "name": "demo", "namespace": "shop", "lint": lint}
    done = subprocess.run(
        [sys.executable, "-m", "tests.deploy.helm"],
        cwd=ROOT,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    if "error" in result:
        raise ChartError(result["error"])
    return result


if __name__ == "__main__":
    written = json.loads(SCHEMA.read_text())
    written["properties"]["settings"]["properties"] = settings_schema()
    SCHEMA.write_text(json.dumps(written, indent=2) + "\n")
