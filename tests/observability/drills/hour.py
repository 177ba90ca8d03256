"""A usual hour: deployments, a restart, an instance that dies, a master that is lost for a while. Nothing may page."""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from claimsvc.background import in_background
from tests.observability.drills.stack import REAL, Stack, open_stack

_LOOK_SECONDS = 1.0
# A deployment waits for one instance to be ready before it replaces the next.
_BETWEEN_INSTANCES_SECONDS = 2.0


@asynccontextmanager
async def pages_seen(stack: Stack, look_seconds: float = _LOOK_SECONDS) -> AsyncIterator[set[str]]:
    """The pages that fire while the context is active."""
    seen: set[str] = set()

    async def look() -> None:
        while True:
            seen.update(name for name, severity in (await stack.firing()).items() if severity == "page")
            await asyncio.sleep(look_seconds)

    async with in_background(look()):
        yield seen


async def deploy(stack: Stack) -> None:
    """Replace the instances one after the other."""
    for instance in stack.instances:
        await instance.terminate()
        await instance.start()
        await asyncio.sleep(_BETWEEN_INSTANCES_SECONDS)


async def lose_an_instance(stack: Stack, seconds: float) -> None:
    """Kill an instance, and start it again after so long."""
    stack.instances[0].kill()
    await asyncio.sleep(seconds)
    await stack.instances[0].start()


async def lose_a_master(stack: Stack, seconds: float) -> None:
    """Kill one of three masters, and start it again after so long."""
    lost = stack.cluster.masters[0]
    await asyncio.to_thread(lost.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(lost.start)


async def usual_time(minutes: float, folder: Path) -> bool:
    """Let so much time pass, say what happened, and return whether nothing has paged."""
    async with open_stack(REAL, folder) as stack:
        ends_at = time.monotonic() + 60 * minutes
        async with pages_seen(stack) as pages:
            while time.monotonic() < ends_at:
                await deploy(stack)
                await asyncio.sleep(60)
                await lose_an_instance(stack, 5)
                await asyncio.sleep(60)
                await lose_a_master(stack, 120)
                await asyncio.sleep(60)
                sys.stderr.write(f"users got {dict(stack.answers)}; pages so far: {sorted(pages)}\n")
        return not pages


def main(minutes: float) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(usual_time(minutes, Path(folder))) else 1
