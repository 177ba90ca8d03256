"""Schemathesis follows the document's links: what one answer names is asked for next, and is as the document says."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.faults.hostile.conftest import Serve
from tests.support.admin import ADMIN

pytestmark = pytest.mark.slow

_CONFIGURATION = """\
hooks = "tests.support.schemathesis_hooks"
[phases.stateful.inference]
algorithms = {algorithms}
[checks.positive_data_acceptance]
# A key that was used for something else is refused, however valid the request is.
expected-statuses = ["2xx", "401", "403", "404", "409", "410", "422", "429", "5xx"]
"""
_GUESSED_TOO = '["location-headers", "dependency-analysis"]'
_DOCUMENTED_ALONE = "[]"
# Schemathesis ends a run when a sequence that it repeats is answered otherwise than before, which a service with state
# does sooner or later. Other seeds go other ways.
_MOST_RUNS = 20


async def follow_links(url: str, seed: int, algorithms: str, place: Path) -> int:
    """Follow the links of the document at random. Returns how many of them were followed."""
    (place / "schemathesis.toml").write_text(_CONFIGURATION.format(algorithms=algorithms))
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("run", f"{url}/openapi.json", "--phases", "stateful", "--checks", "all", "--max-examples", "300"),
        # It takes any claim for one of the coupon that was made last, though its body may name another.
        *("--exclude-checks", "ensure_resource_availability"),
        *("--header", f"Authorization: {ADMIN['Authorization']}", "--seed", str(seed)),
        *("--no-color", "--warnings", "off"),
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await program.communicate())[0].decode()
    assert program.returncode == 0, said
    followed = re.search(r"API Links:\s+(\d+) covered / \d+ selected", said)
    assert followed, said
    return int(followed[1])


@pytest.mark.timeout(300)
async def test_sequences_of_operations_hold_to_the_document(serve: Serve, tmp_path: Path) -> None:
    victim = serve(CLAIMSVC_BODY_TIMEOUT_SECONDS="10", CLAIMSVC_HEADER_TIMEOUT_SECONDS="10")
    url = f"http://127.0.0.1:{victim.port}"
    # It has to go all the way: what it has made is claimed, and read back by the names that it was given.
    wanted = {
        ("POST", "/api/coupons"),
        ("POST", "/api/coupons/claim"),
        ("GET", "/api/coupons/{name}"),
        ("GET", "/api/coupons/{name}/claims"),
    }
    found: set[tuple[str, str]] = set()
    await follow_links(url, 0, _GUESSED_TOO, tmp_path)
    most_followed = 0
    for seed in range(1, _MOST_RUNS):
        most_followed = max(most_followed, await follow_links(url, seed, _DOCUMENTED_ALONE, tmp_path))
        lines = await victim.new_lines()
        found |= {(line["method"], line["route"]) for line in lines if line.get("status") in (200, 201)}
        assert not [line for line in lines if line.get("status", 0) >= 500]
        if found >= wanted and most_followed >= 5:
            break
    assert found >= wanted
    assert most_followed >= 5
    coupons, _, claims, *_ = victim.stored()
    assert coupons > 2
    assert claims > 0
