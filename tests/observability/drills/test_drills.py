"""Every drill, in haste: its alert fires, nothing else pages, and the first command prints what it should."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.observability.dashboards.prometheus import needs_prometheus
from tests.observability.drills.drills import DRILLS, Drill
from tests.observability.drills.hour import deploy, lose_a_master, lose_an_instance, pages_seen
from tests.observability.drills.running import REMEMBER, run
from tests.observability.drills.stack import HASTY, Stack, open_stack
from tests.support.haproxy import needs_haproxy

pytestmark = [
    pytest.mark.slow,
    needs_prometheus,
    needs_haproxy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("drills"),
    pytest.mark.timeout(240),
]

_FIRES_SECONDS = 60.0
_LASTS_SECONDS = 15.0
_SILENT_SECONDS = 60.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(HASTY, tmp_path_factory.mktemp("rules")) as opened:
        yield opened


async def test_nothing_pages_while_instances_are_replaced_and_a_master_is_lost(stack: Stack) -> None:
    """It comes first: after an outage the hour is bad, and a few failures more are a page."""
    await stack.healthy(REMEMBER, _SILENT_SECONDS)
    before = await stack.firing()
    async with pages_seen(stack, look_seconds=0.2) as seen:
        await deploy(stack)
        await lose_an_instance(stack, 3)
        await lose_a_master(stack, 10)
        await asyncio.sleep(5)
    assert seen - before.keys() == set()


@pytest.mark.parametrize("drill", [pytest.param(drill, id=drill.name) for drill in DRILLS])
async def test_a_drill(drill: Drill, stack: Stack) -> None:
    if why_not := drill.needs():
        pytest.skip(why_not)
    ran = await run(
        drill,
        stack,
        fires_seconds=_FIRES_SECONDS,
        lasts_seconds=_LASTS_SECONDS,
        silent_seconds=_SILENT_SECONDS,
    )
    logging.getLogger(__name__).warning("%s: %s", drill.name, ran)
    assert ran.pages <= {drill.first, *drill.also}, "pages that tell of something else"
    assert re.search(drill.prints, ran.printed), ran.printed
