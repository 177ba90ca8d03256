"""What the drills showed in real time: kept in a file, and shown as a table of the runbook."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.observability.dashboards.runbook import RUNBOOK
from tests.observability.drills.drills import DRILLS

RECORD = Path(__file__).with_name("record.json")

_BEGIN = "<!-- drills: `python -m tests.observability.drills` writes this table -->\n"
_END = "<!-- /drills -->"
_LONGEST_CELL = 110


@dataclass(frozen=True, slots=True)
class Entry:
    """What a drill showed.

    Args:
        name: of the drill.
        first: the alert whose entry of the runbook comes first.
        fires_seconds: after which that alert fired.
        pages: after how many seconds each page fired, whether Alertmanager holds it back or not.
        lasted_seconds: how long the failure was there.
        silent_seconds: from its end until nothing fired but alerts that look back for hours.
        availability_of_hour: as the balancer saw it, with an hour of good answers before.
        command: that the entry begins with.
        printed: the line of its output that matters.
    """

    name: str
    first: str
    fires_seconds: float
    pages: dict[str, float]
    lasted_seconds: float
    silent_seconds: float
    availability_of_hour: float
    command: str
    printed: str


def load() -> list[Entry]:
    """All entries, in the order of the drills."""
    if not RECORD.exists():
        return []
    found = {entry["name"]: Entry(**entry) for entry in json.loads(RECORD.read_text(encoding="utf-8"))}
    return [found[drill.name] for drill in DRILLS if drill.name in found]


def save(entries: Sequence[Entry]) -> None:
    """Replace the entries of the same names, and write the table of the runbook."""
    kept = {entry.name: entry for entry in (*load(), *entries)}
    ordered = [asdict(kept[drill.name]) for drill in DRILLS if drill.name in kept]
    RECORD.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")
    RUNBOOK.write_text(with_table(RUNBOOK.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    """The runbook's text with the table of what is recorded."""
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    return text[:begin] + _table(load()) + text[end:]


def _table(entries: Sequence[Entry]) -> str:
    head = "| what fails | open first | fires after | silent after | command | prints |\n|---|---|---|---|---|---|\n"
    return head + "".join(_row(entry) for entry in entries)


def _row(entry: Entry) -> str:
    anchor = entry.first.lower()
    printed = entry.printed.replace("`", "").replace("|", "\\|")
    printed = re.sub(r"^(wrong|failed|claimed) ", "", printed)
    if len(printed) > _LONGEST_CELL:
        printed = printed[:_LONGEST_CELL].rsplit(" ", 1)[0] + " ..."
    severity = "page" if entry.first in entry.pages else "ticket"
    cells = (
        *(entry.name, f"[{entry.first}](#{anchor}), {severity}"),
        *(f"{entry.fires_seconds:.0f} s", f"{entry.silent_seconds:.0f} s"),
        *(f"`{entry.command}`", f"`{printed}`"),
    )
    return f"| {' | '.join(cells)} |\n"
