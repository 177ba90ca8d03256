"""The wheel that the image installs: whatever is not in it is there in a checkout, and missing in production."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.deploy.files import ROOT, copied, enters_builds

pytestmark = pytest.mark.slow


def test_the_wheel_has_every_file_of_the_packages(tmp_path: Path) -> None:
    """Built from what the Dockerfile copies and nothing else, by the setuptools at hand: nothing is downloaded."""
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml asks for a newer setuptools to build")
    source = tmp_path / "source"
    expected = set()
    for top in copied():
        for file in [ROOT / top, *(ROOT / top).rglob("*")]:
            name = str(file.relative_to(ROOT))
            if file.is_file() and enters_builds(name):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, source / name)
                if (ROOT / top).is_dir():
                    expected.add(name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    built = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        missing = expected - set(archive.namelist())
    assert not missing, "name them in [tool.setuptools.package-data]"
