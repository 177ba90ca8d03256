"""The draw of a queue: who joined before the start is drawn by lot, as anybody recomputes it by the documentation."""

import asyncio
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from tests.end_to_end.conftest import OpenService
from tests.support.admin import ADMIN

_PAGE = Path(__file__).parent.parent.parent / "docs" / "http.md"
_QUEUE = {"rate_per_second": 100, "concurrency": 10, "max_wait_seconds": 60, "max_length": 1000, "order": "draw"}
_USERS = 130  # more than a page of entries


async def _recompute(url: str, ticket_id: str) -> tuple[int | None, str]:
    """Run the documented example. Returns its exit status and what it printed."""
    [example] = re.findall(r"^```python\n(.*?)^```", _PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example),
        env={**os.environ, "URL": url, "COUPON": "lots", "TICKET": ticket_id},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    return program.returncode, said.decode()


async def test_the_documented_example_recomputes_a_draw(
    open_service: OpenService, session: aiohttp.ClientSession
) -> None:
    url = await open_service()
    starts_at = datetime.now(UTC) + timedelta(seconds=3)
    body = {"name": "lots", "amount": 50, "queue": _QUEUE, "starts_at": starts_at.isoformat()}
    async with session.post(f"{url}/api/coupons", json=body, headers=ADMIN) as response:
        assert response.status == 201, await response.text()

    async def join(user: str) -> str:
        claim = {"user_id": user, "coupon_name": "lots"}
        async with session.post(f"{url}/api/coupons/claim", json=claim) as response:
            assert response.status == 202, await response.text()
            return str((await response.json())["id"])

    async def draw() -> dict[str, object]:
        async with session.get(f"{url}/api/coupons/lots/draw") as response:
            found: dict[str, object] = await response.json()
            return found

    tickets = await asyncio.gather(*(join(f"user-{number}") for number in range(_USERS)))
    promised = await draw()
    assert (promised["seed"], promised["entries"]) == (None, [])
    async with asyncio.timeout(60):
        while (drawn := await draw())["seed"] is None:
            await asyncio.sleep(0.1)
    assert drawn["seed_hash"] == promised["seed_hash"]
    told = [await _recompute(url, ticket) for ticket in tickets[:3]]
    places = [re.fullmatch(rf"drawn as number (\d+) of {_USERS}\n", said) for _, said in told]
    assert [status for status, _ in told] == [0, 0, 0], told
    assert len({place[1] for place in places if place is not None}) == 3
    status, said = await _recompute(url, "00000000-0000-7000-8000-000000000000")
    assert status == 1
    assert "is not in list" in said
