"""What the runs came to, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.scenario import Row


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over rows; `unavailable_seconds` is the longest."""

    runs: int
    fired: int
    tried: int
    acknowledged: int
    lost: int
    oversold: int
    phantom: int
    falsely_refused: int
    unavailable_seconds: float
    held: bool
    tickets: int = 0
    starts: int = 0


def totals(rows: Sequence[Row]) -> Totals:
    return Totals(
        runs=len(rows),
        fired=sum(row.fired for row in rows),
        tried=sum(row.tried for row in rows),
        acknowledged=sum(row.acknowledged for row in rows),
        lost=sum(row.lost for row in rows),
        oversold=sum(row.oversold for row in rows),
        phantom=sum(row.phantom for row in rows),
        falsely_refused=sum(row.falsely_refused for row in rows),
        unavailable_seconds=max((row.unavailable_seconds for row in rows), default=0.0),
        held=all(row.held for row in rows),
        tickets=sum(row.tickets for row in rows),
        starts=sum(row.starts for row in rows),
    )


def print_table(rows: Sequence[Row], console: Console) -> None:
    """A line for each scenario, over all its runs, and one for all."""
    table = Table("#", "fault", box=None, pad_edge=False)
    for heading in (
        *("runs", "fired", "tried", "acknowledged", "tickets", "starts"),
        *("lost", "oversold", "phantom", "refused", "unavailable"),
    ):
        table.add_column(heading, justify="right")
    table.add_column("")
    for (fault, name), found in by_scenario(rows).items():
        table.add_row(fault, name, *_cells(totals(found)))
    table.add_section()
    table.add_row("", "all", *_cells(totals(rows)))
    console.print(table)


def _cells(told: Totals) -> list[str]:
    counts = (told.runs, told.fired, told.tried, told.acknowledged, told.tickets, told.starts)
    return [
        *(f"{count:,}" for count in (*counts, told.lost, told.oversold, told.phantom, told.falsely_refused)),
        f"{told.unavailable_seconds:.1f} s",
        "held" if told.held else "DID NOT HOLD",
    ]


def by_scenario(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.fault, row.name), []).append(row)
    return found


def document(rows: Sequence[Row], skipped: Mapping[str, str], seed: int) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "seed": seed,
        "totals": totals(rows),
        "scenarios": [
            {"fault": fault, "name": name, "totals": totals(found)}
            for (fault, name), found in by_scenario(rows).items()
        ],
        "rows": [
            {
                "fault": row.fault,
                "name": row.name,
                "seed": row.seed,
                "held": row.held,
                "fired": row.fired,
                "tried": row.tried,
                "acknowledged": row.acknowledged,
                "tickets": row.tickets,
                "starts": row.starts,
                "lost": row.lost,
                "oversold": row.oversold,
                "phantom": row.phantom,
                "falsely_refused": row.falsely_refused,
                "unavailable_seconds": round(row.unavailable_seconds, 3),
                "seconds": round(row.seconds, 3),
                "notes": row.notes,
                "violations": [str(violation) for violation in row.violations[:100]],
            }
            for row in rows
        ],
        "skipped": skipped,
    }
