"""Reads the files that deploy the service, as far as Docker's own rules are needed to judge them."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = _PYPROJECT["project"]
BUILD_REQUIRES: list[str] = _PYPROJECT["build-system"]["requires"]

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\}|(.?))")


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml, its anchors resolved, its variables not."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def image(name: str) -> tuple[str, str]:
    """The repository and the tag of an image's name; a digest may follow them, as in `postgres:18.6@sha256:...`."""
    repository, _, tag = name.partition("@")[0].rpartition(":")
    return repository, tag


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """What Compose makes of `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$`; other forms are not used here.

    Raises:
        ValueError: a required variable is not set, or the text has another form.
    """

    def value(match: re.Match[str]) -> str:
        dollar, name, kind, rest, _ = match.groups()
        if dollar:
            return "$"
        if not name:
            raise ValueError(f"{match[0]!r} in {text!r} is none of the forms that are used here")
        if environment.get(name):
            return environment[name]
        if kind == "?":
            raise ValueError(f"{name} is required: {rest}")
        return rest or ""

    return _VARIABLE.sub(value, text)


def environment_of(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What Compose sets in the service's containers."""
    declared: dict[str, Any] = services()[service].get("environment", {})
    return {name: interpolate(str(value), environment) for name, value in declared.items()}


def mounts(service: str) -> list[tuple[str, str]]:
    """The files and folders of this repository that the service's containers see, and where."""
    volumes = [volume.split(":") for volume in services()[service].get("volumes", [])]
    return [(source.removeprefix("./"), target) for source, target, *_ in volumes if source.startswith("./")]


def seconds(duration: str) -> float:
    """A Compose duration such as `45s` or `1m30s`."""
    parts = re.findall(r"(\d+)(h|m|s|ms)", duration)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for number, unit in parts)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the Dockerfile, in the stage of that number (from 0)."""

    stage: int
    keyword: str
    arguments: str

    def exec_form(self) -> list[str]:
        """The arguments where they are (or end in) a JSON array."""
        words: list[str] = json.loads(self.arguments[self.arguments.index("[") :])
        return words


@cache
def dockerfile() -> tuple[Instruction, ...]:
    """The Dockerfile's instructions in their order."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    stage = -1
    found = []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        keyword, _, arguments = line.strip().partition(" ")
        if keyword:
            stage += keyword.upper() == "FROM"
            found.append(Instruction(stage, keyword.upper(), arguments.strip()))
    return tuple(found)


def final_stage(keyword: str) -> list[Instruction]:
    """The instructions of that name in the stage that becomes the image."""
    last = dockerfile()[-1].stage
    return [one for one in dockerfile() if one.stage == last and one.keyword == keyword]


def image_environment() -> dict[str, str]:
    """What the image itself sets."""
    words = [word for one in final_stage("ENV") for word in one.arguments.split()]
    return dict(word.split("=", 1) for word in words)


def copied() -> list[str]:
    """What the Dockerfile copies from this folder."""
    lines = [one.arguments for one in dockerfile() if one.keyword == "COPY" and "--from=" not in one.arguments]
    return [source for line in lines for source in line.split()[:-1]]


def enters_builds(path: str) -> bool:
    """Whether .dockerignore lets a build see the file: the last pattern that fits it, or a folder of it, decides."""
    parts = path.split("/")
    prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    enters = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = _regex(line.removeprefix("!"))
            if any(pattern.fullmatch(prefix) for prefix in prefixes):
                enters = line.startswith("!")
    return enters


def _regex(pattern: str) -> re.Pattern[str]:
    wildcards = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*|\?|\[[^]]*\])", pattern)
    return re.compile(
        "".join(wildcards.get(piece, piece if piece.startswith("[") else re.escape(piece)) for piece in pieces)
    )
