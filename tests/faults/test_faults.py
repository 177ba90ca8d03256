"""The quick selection of the fault suite: every fault of the table once. `make faults` runs all, again and again."""

import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checks import ABOUT_TIME
from tests.faults.scenario import Context, Scenario, open_context, scenarios

# Each worker has servers of its own; the scenarios are dealt to them one by one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Broken(Exception):  # noqa: N818
    """A promise is broken, whatever the machine is busy with: `make check` does not try such a test again."""


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with open_context(full=False, kept=Path("build/faults/kept"), alone=False) as opened:
        yield opened


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(each, id=f"{each.fault}-{each.name}") for each in scenarios() if each.quick],
)
async def test_nothing_is_oversold_or_lost(scenario: Scenario, context: Context) -> None:
    reason = scenario.needs()
    if reason is not None:
        pytest.skip(reason)
    seed = secrets.randbits(32)
    row = await scenario.run(context, random.Random(seed))
    told = "\n".join(str(violation) for violation in row.violations[:50])
    if any(violation.kind not in ABOUT_TIME for violation in row.violations):
        raise Broken(f"seed {seed}: {row.notes}\n{told}")
    assert row.fired, f"seed {seed}: the fault was never there"
    assert row.held, f"seed {seed}: {row.notes}\n{told}"
    assert row.acknowledged, f"seed {seed}: not one claim was made"
