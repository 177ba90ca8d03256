"""The layout of the tests: a folder for each room or kind of test, which share code by `tests/support` alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOMS = {path.parent.name for path in (TESTS.parent / "claimsvc").glob("*/__init__.py")}
FOLDERS = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*") if any(path.glob("*.py"))}

# Kinds of tests that belong to no one room, and what all of them share.
_BESIDE_THE_ROOMS = {
    *("behaviour", "end_to_end", "faults", "simulation"),
    *("bench", "deploy", "fuzz", "stress_test"),
    "support",
}


def imported_by(source: str) -> Iterator[str]:
    """The modules below `tests` that a module imports, by their full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A name may be a module, so that `from tests import http` is not overlooked.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("tests."))


def borrowed(path: Path, source: str) -> list[str]:
    """What a file of the tests imports that is neither of its own folder nor support.

    Args:
        path: of the file, from `tests/`.
        source: its text.
    """
    allowed = {"support", path.parts[0]}
    return [name for name in imported_by(source) if name.split(".")[1] not in allowed]


def test_no_folder_imports_from_another_one_but_support() -> None:
    paths = sorted(path.relative_to(TESTS) for path in TESTS.rglob("*.py"))
    assert len(paths) > 200
    found = {path.as_posix(): borrowed(path, (TESTS / path).read_text(encoding="utf-8")) for path in paths}
    assert {name: modules for name, modules in found.items() if modules} == {}


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("http/test_a.py", "from tests.http.asking import claim\nfrom tests.support import waiting", []),
        ("redis/lock/test_a.py", "import tests.redis.rate_limiter.quota_service\nimport tests.support.proxy", []),
        ("http/test_a.py", "from tests.redis.lock import conftest", ["tests.redis.lock.conftest"]),
        ("http/test_a.py", "from tests import redis", ["tests.redis"]),
        ("support/a.py", "def f():\n    import tests.faults.trial", ["tests.faults.trial"]),
        ("test_a.py", "from tests.conftest import start", ["tests.conftest.start"]),
    ],
    ids=["support", "its own room", "another room", "a whole room", "from support", "from conftest"],
)
def test_what_is_borrowed_is_found(path: str, source: str, expected: list[str]) -> None:
    assert borrowed(Path(path), source) == expected


def test_every_folder_is_a_room_or_a_kind_of_test() -> None:
    tops = {name.partition("/")[0] for name in FOLDERS}
    assert tops - ROOMS == _BESIDE_THE_ROOMS


def test_every_folder_is_a_package() -> None:
    """pytest puts the first folder that is none on the path; of tests/ that would hide the libraries http and redis."""
    assert {name for name in FOLDERS if not (TESTS / name / "__init__.py").exists()} == set()


def test_the_map_has_every_folder_and_every_file_at_the_top() -> None:
    page = (TESTS / "README.md").read_text(encoding="utf-8")
    files = {f"tests/{path.name}" for path in TESTS.glob("*.py")} - {"tests/__init__.py"}
    rows = "\n".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE))
    named = set(re.findall(r"`([^`]+)`", rows))
    assert named == {f"tests/{name}" for name in FOLDERS} | files
