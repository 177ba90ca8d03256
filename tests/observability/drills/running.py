"""Runs one drill, and measures when what fires and when it falls silent."""

import asyncio
import json
import re
import time
from dataclasses import dataclass

from tests.observability.drills.drills import Drill
from tests.observability.drills.stack import Stack, without_what_changes

_POLL_SECONDS = 0.2
_TRIES = 5

REMEMBER = frozenset(
    {
        *("ClaimsvcAvailabilityBurnFast", "ClaimsvcAvailabilityBurnSlow", "ClaimsvcBalancerErrorsSlow"),
        *("ClaimsvcLatencyBurnFast", "ClaimsvcLatencyBurnSlow"),
    }
)
"""Alerts that go on for a while after the trouble, because they look back for hours."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a drill showed.

    Args:
        fired: after how many seconds each alert fired, in this order.
        pages: those of them that page.
        silent_seconds: from the repair until neither the first alert nor a page fired, but those that remember.
        printed: what the first command printed: its first line that matters.
    """

    fired: dict[str, float]
    pages: frozenset[str]
    silent_seconds: float
    printed: str


async def run(drill: Drill, stack: Stack, *, fires_seconds: float, lasts_seconds: float, silent_seconds: float) -> Ran:
    """Stage a drill until its first alert fires, and longer; mend it, and wait until it is silent.

    Args:
        drill: what to stage.
        stack: everything that runs.
        fires_seconds: within which the first alert has to fire.
        lasts_seconds: how long it is staged in any case, so that further alerts have their time.
        silent_seconds: within which nothing may fire any more once it is mended.

    Raises:
        AssertionError: it did not fire, or did not fall silent.
    """
    await stack.healthy(REMEMBER, silent_seconds, but_for=drill.first)
    before = await stack.firing()
    fired: dict[str, float] = {}
    pages: set[str] = set()

    async def look(began_at: float) -> dict[str, str]:
        firing = await stack.firing()
        for name, severity in firing.items():
            if name in before:
                continue
            fired.setdefault(name, round(time.monotonic() - began_at, 1))
            if severity == "page":
                pages.add(name)
        return firing

    began_at = time.monotonic()
    async with drill.stage(stack):
        while drill.first not in await look(began_at):
            assert time.monotonic() - began_at < fires_seconds, f"{drill.first} does not fire; there fire {fired}"
            await asyncio.sleep(_POLL_SECONDS)
        printed = await _printed(drill, stack)
        while time.monotonic() - began_at < lasts_seconds:
            await look(began_at)
            await asyncio.sleep(_POLL_SECONDS)
    mended_at = time.monotonic()
    while {
        name for name, severity in (await stack.firing()).items() if severity == "page" or name == drill.first
    } - REMEMBER:
        assert time.monotonic() - mended_at < silent_seconds, f"{await stack.firing()} do not end"
        await asyncio.sleep(_POLL_SECONDS)
    return Ran(fired, frozenset(pages), round(time.monotonic() - mended_at, 1), printed)


async def _printed(drill: Drill, stack: Stack) -> str:
    """What the first command prints. A failure may spare some claims: then somebody on call would try again."""
    for _ in range(_TRIES):
        printed = _essence(await drill.run_command(stack))
        if re.search(drill.prints, printed):
            break
    return printed


def _essence(printed: str) -> str:
    """The first line that says what is wrong, the first row of a table, or the first line.

    Without what differs from run to run.
    """
    if printed.startswith("{"):  # of `/readyz?verbose`
        checks = json.loads(printed).get("checks", {})
        return "; ".join(f"{name}: {check['detail']}" for name, check in checks.items() if check["status"] != "ok")
    lines = [" ".join(line.split()) for line in without_what_changes(printed).splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith("wrong")]
    rows = [line for line in lines[1:] if re.search(r"\w", line)] if lines and lines[0].startswith("coupon ") else []
    return (wrong or rows or lines or [""])[0]
