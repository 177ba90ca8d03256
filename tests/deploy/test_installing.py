"""`make` installs quietly: what pip prints is a progress on a terminal, and shown only if it fails."""

import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.waiting import block_until

ROOT = Path(__file__).parents[2]

# In place of an interpreter: it prints what pip does, and takes as long as it is told.
_PIP = """#!/bin/sh
for number in 1 2 3 4 5; do echo "Collecting package-$number"; done
sleep {seconds}
echo 'the reason'
exit {status}
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / ".python").write_text("/nowhere\n")
    return folder


def write_pip(venv: Path, *, status: int = 0, seconds: float = 0) -> None:
    for name in ("python", "pip"):
        program = venv / "bin" / name
        program.write_text(_PIP.format(status=status, seconds=seconds))
        program.chmod(0o755)


def command(venv: Path) -> list[str]:
    return ["make", "--no-print-directory", "-C", str(ROOT), f"VENV={venv}", f"{venv}/.installed-dev"]


def test_what_pip_prints_is_not_shown_unless_it_fails(venv: Path) -> None:
    write_pip(venv)
    done = subprocess.run(command(venv), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    assert line.startswith("Installing claimsvc and what its tests need")
    assert (venv / ".installed-dev").exists()
    assert "Collecting package-5" in (venv / "install.log").read_text()


def test_a_failure_shows_all_of_it_and_installs_nothing(venv: Path) -> None:
    write_pip(venv, status=7)
    done = subprocess.run(command(venv), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Collecting package-1" in done.stderr
    assert "the reason" in done.stderr
    assert not (venv / ".installed-dev").exists()


def test_a_terminal_shows_how_far_it_is(venv: Path) -> None:
    write_pip(venv, seconds=1.5)
    ours, its = pty.openpty()
    with subprocess.Popen(command(venv), stdout=its, stderr=its) as make:
        os.close(its)
        shown = b""
        try:
            while read := os.read(ours, 1024):
                shown += read
        except OSError:  # make has ended
            pass
        assert make.wait(60) == 0
    os.close(ours)
    assert b"\r  5 packages" in shown
    assert b"Collecting" not in shown


def test_it_ends_with_make(venv: Path) -> None:
    write_pip(venv, seconds=30)
    with subprocess.Popen(
        command(venv),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # What runs in a shell's background ignores SIGINT, and so do its children.
        preexec_fn=_heed_interrupts,
    ) as make:
        while not (venv / "install.log").exists():
            time.sleep(0.05)
        os.killpg(make.pid, signal.SIGINT)  # as Ctrl-C does
        assert make.wait(20) != 0
    block_until(lambda: _processes_of(venv) == "", "nothing to be left")


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _processes_of(venv: Path) -> str:
    return subprocess.run(["pgrep", "-f", str(venv)], capture_output=True, text=True, check=False).stdout
