"""Variables that a shell has from a `make run`: once that run is over, they are noticed, and not used."""

import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimsvc.config import hint, run_marker, run_variables
from claimsvc.embedded import temporary_state_dir
from tests.support.program import Starter, claimsvc, claimsvc_here, pids_on

URLS = {"CLAIMSVC_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c", "CLAIMSVC_REDIS_URLS": "redis://127.0.0.1:1"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a run, which is this process, and whose variables are set."""
    path = tmp_path / "environment"
    name, value = run_marker(path, URLS)
    path.write_text(f"export {name}={value}\n")
    for variable, text in (URLS | {name: value}).items():
        monkeypatch.setenv(variable, text)
    return path


def is_over() -> bool | None:
    found = run_variables()
    return None if found is None else found.is_over


def test_a_run_is_over_when_its_file_is_gone_or_is_another_runs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (is_over(), hint()) == (False, "")
    written = file.read_text()
    file.write_text(written.replace("=", "=1", 1))
    assert is_over() is True
    file.write_text(written)
    assert is_over() is False
    file.unlink()
    assert is_over() is True
    assert "unset CLAIMSVC_DATABASE_URL CLAIMSVC_REDIS_URLS CLAIMSVC_RUN" in hint()
    monkeypatch.setenv("CLAIMSVC_DATABASE_URL", "postgresql://other@127.0.0.1/c")
    assert (is_over(), hint()) == (None, ""), "set otherwise since then"


@pytest.mark.parametrize("value", ["", "1", "1:", "::", "a:b:c", "99999999999999999999:b:c", "\udcff"])
def test_what_names_no_run_is_ignored(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CLAIMSVC_RUN", value)
    assert run_variables() is None


def test_a_run_that_was_killed_is_over_though_its_file_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = file.read_text().partition("=")[2].strip().split(":", 1)[1]
    value = f"{2**22 + 1}:{killed}"  # more than any process's id is
    file.write_text(value)
    monkeypatch.setenv("CLAIMSVC_RUN", value)
    assert is_over() is True


def test_commands_say_that_the_run_is_over(file: Path) -> None:
    file.unlink()
    marker = dict([run_marker(file, URLS)])
    for command in (("coupon", "list"), ("locks",), ("migrate",), ("doctor",)):
        told = claimsvc_here(*command, **URLS, **marker)
        assert told.returncode in (1, 78)
        assert "a run that is over" in told.stderr or "a `make run` that is over" in told.stdout
        assert "unset CLAIMSVC_DATABASE_URL" in told.stderr + told.stdout


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with temporary_state_dir() as path:
        yield path / "state"
        assert pids_on(path) == []


def sourced(file: Path) -> dict[str, str]:
    """What `. environment` sets."""
    lines = [shlex.split(line)[1] for line in file.read_text().splitlines() if "PATH" not in line]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.slow
def test_a_shell_that_has_the_variables_of_a_run_surprises_nobody(start: Starter, state_dir: Path) -> None:
    options = ("--port", "0", "--masters", "1", "--state-dir", str(state_dir))
    run = start("dev", *options)
    run.eventually_prints("Ctrl-C stops")
    variables = sourced(state_dir / "environment")
    script = "import os; print(os.environ['URL'])"
    stress = ("dev", "--port", "0", "--masters", "1", "--temporary", "--", sys.executable, "-c", script)

    told = claimsvc(*stress, **variables)
    assert told.returncode == 0, told.stderr
    assert "are ignored, because this run keeps no data" in told.stderr
    assert (
        f"The command runs against {told.stdout.strip()}, which was started for it, on servers of its own"
        in told.stderr
    )
    assert run.end(signal.SIGINT) == 0

    told = claimsvc(*stress, **variables)
    assert told.returncode == 0, told.stderr
    assert "are ignored, which is over" in told.stderr
    again = start("dev", *options, **variables)
    again.eventually_prints("Ctrl-C stops")
    assert re.search("are ignored, which is over: servers are started here", again.stdout)
    assert again.end(signal.SIGINT) == 0
