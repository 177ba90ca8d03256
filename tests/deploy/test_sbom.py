"""The SBOM that `make sbom` and CI write: CycloneDX, valid, and what the lock of the image says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.deploy.files import PROJECT, ROOT
from tests.deploy.lock_files import locked

pytest.importorskip("cyclonedx_py", reason="`make check` installs what writes the SBOM")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the Makefile's own command writes; the tool validates it by the schema that it brings."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (words,) = re.findall(r"-m (cyclonedx_py .*) --output-file dist/claimsvc\.cdx\.json", makefile)
    assert "--validate" in words.split()
    written: Path = tmp_path_factory.mktemp("sbom") / "claimsvc.cdx.json"
    command = [sys.executable, "-m", *words.split(), "--output-file", str(written)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(written.read_text())
    return found


def test_it_describes_the_project(document: dict[str, Any]) -> None:
    described = document["metadata"]["component"]
    assert (described["name"], described["type"]) == (PROJECT["name"], "application")
    assert (document["bomFormat"], described["version"]) == ("CycloneDX", PROJECT["version"])


def test_it_has_every_package_of_the_image_with_its_hashes(document: dict[str, Any]) -> None:
    def hashes(component: dict[str, Any]) -> set[str]:
        places = component.get("externalReferences", [])
        return {one["content"] for place in places for one in place.get("hashes", [])}

    listed = {
        (canonicalize_name(component["name"]), component["version"]): hashes(component)
        for component in document["components"]
    }
    expected = {(canonicalize_name(one.requirement.name), one.version): set(one.hashes) for one in locked("run")}
    assert listed == expected
