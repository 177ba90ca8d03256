"""One client that floods does not keep the others from being served."""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from tests.faults.hostile.conftest import Serve, Victim
from tests.support.raw_http import Wire, connected, request

pytestmark = pytest.mark.slow

_CONNECTIONS = 8
_ROUND_SECONDS = 3.0
_ROUNDS = 6
_FACTOR = 3.0
_users = itertools.count()


@contextmanager
def flooding(victim: Victim, connections: int, coupon: str) -> Iterator[None]:
    program = [sys.executable, "-m", "tests.faults.hostile.flood", str(victim.port), "127.0.0.2"]
    with subprocess.Popen([*program, str(connections), coupon], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flood:
        assert flood.stdout is not None
        assert flood.stdout.readline() == b"flooding\n"
        yield
        flood.communicate(timeout=30)
        assert flood.returncode == 0


async def claim_again_and_again(wire: Wire, until: float) -> list[float]:
    took = []
    while time.monotonic() < until:
        body = f'{{"user_id": "user-{next(_users)}", "coupon_name": "wanted"}}'.encode()
        started = time.monotonic()
        await wire.send(request("POST", "/api/coupons/claim", body))
        answer = await wire.answer()
        took.append(time.monotonic() - started)
        assert answer is not None
        assert answer.status == 201
    return took


async def p99_of_claims(victim: Victim) -> float:
    """The 99th percentile, in seconds, of what an ordinary client waits that keeps a few connections busy."""
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(victim.port)) for _ in range(_CONNECTIONS)]
        until = time.monotonic() + _ROUND_SECONDS
        took = sorted(itertools.chain(*await asyncio.gather(*(claim_again_and_again(wire, until) for wire in wires))))
    assert len(took) > 100
    return took[len(took) * 99 // 100]


@pytest.mark.parametrize("connections", [4, 300], ids=["pipelining over a few connections", "over hundreds"])
async def test_a_flooding_client_does_not_move_another_s_p99_far(
    serve: Serve, connections: int, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = serve()
    victim.database.execute(
        "INSERT INTO coupons (name, amount, remaining_amount, strategy) VALUES ('wanted', 1000000, 1000000, 'redlock')"
    )
    ratios = []
    await p99_of_claims(victim)
    for _ in range(_ROUNDS):
        alone = await p99_of_claims(victim)
        with flooding(victim, connections, "last"):
            flooded = await p99_of_claims(victim)
        ratios.append(flooded / alone)
        with capsys.disabled():
            print(f"\n{alone * 1000:.1f} ms alone, {flooded * 1000:.1f} ms beside the flood: x{ratios[-1]:.2f}")  # noqa: T201
        if ratios[-1] <= _FACTOR:
            break
    # The best round: whatever else this machine does makes a round worse, and never better.
    assert min(ratios) <= _FACTOR
