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


async def test_sequences_of_operations_hold_to_the_document(serve: Serve, tmp_path: Path) -> None:
    victim = serve(CLAIMSVC_BODY_TIMEOUT_SECONDS="10", CLAIMSVC_HEADER_TIMEOUT_SECONDS="10")
    url = f"http://127.0.0.1:{victim.port}"
    # A key that was used for something else is refused, however valid the request is.
    (tmp_path / "schemathesis.toml").write_text(
        'hooks = "tests.support.schemathesis_hooks"\n'
        "[checks.positive_data_acceptance]\n"
        'expected-statuses = ["2xx", "401", "403", "404", "409", "410", "422", "429", "5xx"]\n'
    )
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("run", f"{url}/openapi.json", "--phases", "stateful", "--checks", "all", "--max-examples", "300"),
        # It takes any claim for one of the coupon that was made last, though its body may name another.
        *("--exclude-checks", "ensure_resource_availability"),
        *("--header", f"Authorization: {ADMIN['Authorization']}", "--seed", "1", "--no-color", "--warnings", "off"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await program.communicate())[0].decode()
    assert program.returncode == 0, said
    followed = re.search(r"API Links:\s+(\d+) covered / (\d+) selected", said)
    assert followed, said
    assert int(followed[1]) >= 5, said
    lines = await victim.new_lines()
    # It went all the way: what it had made was claimed, and read back by the names that it was given.
    found = {(line["method"], line["route"]) for line in lines if line.get("status") in (200, 201)}
    made = {("POST", "/api/coupons"), ("POST", "/api/coupons/claim")}
    assert found >= made | {("GET", "/api/coupons/{name}"), ("GET", "/api/coupons/{name}/claims")}
    assert not [line for line in lines if line.get("status", 0) >= 500]
    coupons, _, claims, *_ = victim.stored()
    assert coupons > 2
    assert claims > 0
