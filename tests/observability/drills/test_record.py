"""The runbook's table of drills: it is what was recorded, of the drills that there are, and keeps what was promised."""

import re

import pytest

from tests.observability.dashboards.runbook import RUNBOOK
from tests.observability.drills.drills import DRILLS, Drill
from tests.observability.drills.record import load, with_table
from tests.support.alert_rules import alerts

_PAGE_SECONDS = 120
_SILENT_SECONDS = 120
_TICKET_SECONDS = 300

_EVERY_DRILL = pytest.mark.parametrize("drill", [pytest.param(drill, id=drill.name) for drill in DRILLS])


def test_the_table_of_the_runbook_is_that_of_the_record() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    assert with_table(text) == text, "run `python -m tests.observability.drills`, which writes it"


@_EVERY_DRILL
def test_every_drill_was_run_as_it_is_defined(drill: Drill) -> None:
    [entry] = [entry for entry in load() if entry.name == drill.name]
    assert (entry.first, entry.command) == (drill.first, drill.command), "run it again: it has changed"
    assert re.search(drill.prints, entry.printed)
    assert entry.pages.keys() <= {drill.first, *drill.also}


@_EVERY_DRILL
def test_a_page_came_within_two_minutes_and_was_silent_within_two_minutes(drill: Drill) -> None:
    [entry] = [entry for entry in load() if entry.name == drill.name]
    is_page = alerts()[drill.first]["labels"]["severity"] == "page"
    assert (drill.first in entry.pages) == is_page
    assert entry.fires_seconds < (_PAGE_SECONDS if is_page else _TICKET_SECONDS)
    assert entry.silent_seconds < _SILENT_SECONDS
