"""Every seed holds, and so does what a few seconds of fuzzing make of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, close

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    close()


def test_every_target_says_what_must_hold_and_has_seeds() -> None:
    assert set(TARGETS) == set(SEEDS)
    assert all(target.__doc__ for target in TARGETS.values())


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_holds(name: str) -> None:
    assert SEEDS[name]
    for seed in SEEDS[name]:
        for data in (seed, seed[:-1], seed * 2):
            TARGETS[name](data)


@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    """`make fuzz` runs longer. An input that fails is in the output, as bytes."""
    pytest.importorskip("atheris", reason="there is no wheel of atheris for this Python, or `make check` installs it")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--together", "--seconds", "8"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
