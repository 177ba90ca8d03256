"""Reads the lock files in requirements/, which `make lock` writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.files import PROJECT, ROOT

# What each file is for: the extras that it locks beside the dependencies themselves.
EXTRAS = {
    "run": ("tracing",),
    "embedded": ("embedded", "tracing"),
    "dev": ("dev",),
    "check": ("dev", "chart", "fuzz", "sbom"),
}
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?!\S)")


@dataclass(frozen=True, slots=True)
class Locked:
    """One entry of a lock file."""

    requirement: Requirement
    hashes: frozenset[str]

    @property
    def version(self) -> str:
        """The one version that may be installed."""
        (specifier,) = self.requirement.specifier
        assert specifier.operator == "=="
        return specifier.version


def text_of(name: str) -> str:
    """The text of requirements/NAME.txt."""
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def entries(text: str) -> list[Locked]:
    """The entries of a lock file; comments say only what asked for them.

    Raises:
        ValueError: a line is no requirement with hashes.
    """
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in lines.replace("\\\n", " ").splitlines():
        words, *hashes = line.split("--hash")
        kept = _HASH.findall(line)
        if not kept or len(kept) != len(hashes):
            raise ValueError(f"not locked by hashes alone: {line!r}")
        found.append(Locked(Requirement(words.strip()), frozenset(kept)))
    return found


@cache
def locked(name: str) -> tuple[Locked, ...]:
    """The entries of requirements/NAME.txt."""
    return tuple(entries(text_of(name)))


def declared(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """What pyproject.toml asks for: the dependencies, and those of the extras; an extra may name others."""
    yield from map(Requirement, PROJECT["dependencies"])
    for extra in extras:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            if requirement.name == PROJECT["name"]:
                yield from declared(tuple(sorted(requirement.extras)))
            else:
                yield requirement


def not_covered(wanted: Iterator[Requirement], offered: tuple[Locked, ...], environment: dict[str, Any]) -> list[str]:
    """What is asked for there without exactly one locked version that fits.

    Args:
        environment: the markers' values, such as `python_version`.
    """
    here = [one for one in offered if one.requirement.marker is None or one.requirement.marker.evaluate(environment)]
    missing = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        versions = [
            one.version
            for one in here
            if canonicalize_name(one.requirement.name) == canonicalize_name(requirement.name)
        ]
        if len(versions) != 1 or not requirement.specifier.contains(versions[0], prereleases=True):
            missing.append(f"{requirement} by {versions or 'nothing'}")
    return missing
