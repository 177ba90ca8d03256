"""The lock files: they cover what pyproject.toml asks for, agree with each other, and are what is installed from."""

import re
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from tests.deploy.files import BUILD_REQUIRES, PROJECT, ROOT, dockerfile
from tests.deploy.lock_files import EXTRAS, declared, entries, locked, not_covered, text_of

NAMES = ("build", *EXTRAS)
_SYSTEMS = {"x86_64": ("linux", "x86_64"), "aarch64": ("linux", "aarch64"), "macOS": ("darwin", "arm64")}


def _environment(python: str, system: str = "x86_64") -> dict[str, Any]:
    platform, machine = _SYSTEMS[system]
    names = {"python_version": python, "python_full_version": f"{python}.2"}
    return {**default_environment(), **names, "sys_platform": platform, "platform_machine": machine}


def test_there_is_no_other_lock_file() -> None:
    assert {path.name for path in (ROOT / "requirements").iterdir()} == {f"{name}.txt" for name in NAMES}


@pytest.mark.parametrize("system", _SYSTEMS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("name", EXTRAS)
def test_every_dependency_is_locked_within_its_range(name: str, python: str, system: str) -> None:
    """When it fails, run `make lock KEEP=1`."""
    assert not_covered(declared(EXTRAS[name]), locked(name), _environment(python, system)) == []


def test_every_extra_is_locked() -> None:
    together = {str(requirement) for extras in EXTRAS.values() for requirement in declared(extras)}
    for extra in PROJECT["optional-dependencies"]:
        assert {str(requirement) for requirement in declared((extra,))} <= together, extra


def test_what_builds_the_project_is_locked() -> None:
    assert not_covered(map(Requirement, BUILD_REQUIRES), locked("build"), _environment("3.11")) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_file_names_versions_and_hashes_and_no_place_to_get_them(name: str) -> None:
    assert locked(name)
    assert all(one.version for one in locked(name))
    assert re.findall(r"://|^\s*-[-\w]*(?:index|find|host|requirement)\S*", text_of(name), re.MULTILINE) == []


def test_the_lock_files_agree() -> None:
    full = {str(one.requirement).partition(";")[0].strip(): one.hashes for one in locked("check")}
    for name in EXTRAS:
        for one in locked(name):
            assert full[str(one.requirement).partition(";")[0].strip()] == one.hashes, one


def test_the_image_installs_from_the_lock_and_nothing_else() -> None:
    """Every pip of the build stage has hashes to check, or no index to ask."""
    commands = [
        command
        for one in dockerfile()
        if one.keyword == "RUN"
        for command in one.arguments.split("&&")
        if re.search(r"\bpip\b.*\b(install|wheel|download)\b", command)
    ]
    assert len(commands) == 4
    assert all("--require-hashes" in command or "--no-index" in command for command in commands)
    named = re.findall(r"requirements/\w+\.txt", " ".join(commands))
    assert named == ["requirements/build.txt", "requirements/run.txt"]


def test_make_installs_from_the_locks_and_nothing_else() -> None:
    """The project comes without its dependencies, and only the tool that writes the locks is named by its version."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    uses = [line.strip() for line in makefile.splitlines() if "$(PIP)" in line]
    assert len(uses) == 3
    for use in uses:
        assert re.search(r"--require-hashes|--no-deps --no-build-isolation|--quiet uv==[\d.]+$", use), use
    assert makefile.count(" -m pip ") == 2
    installed = set(re.findall(r"\$\(LOCKED\) requirements/(\w+)\.txt", makefile))
    assert installed == set(EXTRAS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a==1.0 --hash=sha256:" + "0" * 64, []),
        ("a==2.0 --hash=sha256:" + "0" * 64, ["a<2,>=1 by ['2.0']"]),
        ("b==1.0 --hash=sha256:" + "0" * 64, ["a<2,>=1 by nothing"]),
        ('a==1.0 ; python_version < "3.0" --hash=sha256:' + "0" * 64, ["a<2,>=1 by nothing"]),
    ],
    ids=["covered", "too new", "missing", "for another Python"],
)
def test_what_is_not_covered_is_found(text: str, expected: list[str]) -> None:
    wanted = iter([Requirement("a>=1,<2"), Requirement("z; sys_platform == 'win32'")])
    assert not_covered(wanted, tuple(entries(text)), _environment("3.13")) == expected


@pytest.mark.parametrize("text", ["a==1.0", "a==1.0 --hash=md5:1234", "--extra-index-url file:///x"])
def test_an_entry_without_a_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not locked"):
        entries(text)
