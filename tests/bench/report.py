"""What a run came to: tables for people, a JSON document for machines."""

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.contestants import LOAD_GENERATOR, Phase
from tests.bench.figures import Figure
from tests.bench.rounds import CPU_GROUPS, Pace, Series, rate_of_base

SCHEMA_VERSION = 2
# From here on the load generator may be what limits a contestant, and it is said.
_CLIENT_LIMIT = 0.85


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was measured."""

    pace: Pace
    quick: bool
    phases: Sequence[tuple[Phase, Sequence[Series]]]
    figures: Sequence[Figure]
    notes: Sequence[str]
    versions: Mapping[str, str]
    started_at: datetime
    seconds: float


def by_name(phases: Iterable[tuple[Phase, Sequence[Series]]]) -> dict[str, Series]:
    """All series by their contestants' names; of two alike, that of the earlier phase."""
    named: dict[str, Series] = {}
    for _, series in phases:
        for one in series:
            named.setdefault(one.contestant.name, one)
    return named


def print_run(run: Run, console: Console) -> None:
    """Print a table for each phase, the ceiling, and the judged figures."""
    named = by_name(run.phases)
    for phase, series in run.phases:
        console.print(_phase_table(phase, series))
    console.print(
        f"Medians of {run.pace.rounds} interleaved rounds of {run.pace.seconds:g} s each, {run.seconds:.0f} s in all. "
        "A claim counts once its 201 is read; latencies are of all answers. CPU is milliseconds per claim.",
        highlight=False,
    )
    if LOAD_GENERATOR in named:
        alone = named[LOAD_GENERATOR]
        console.print(
            f"The load generator's own ceiling, against a server that does nothing: {alone.rate:,.0f} requests/s, "
            f"{alone.cpu_ms('client') * 1000:.1f} µs of CPU for each.",
            highlight=False,
        )
    for note in (*run.notes, *_client_notes(named.values())):
        console.print(f"Note: {note}", highlight=False, markup=False)
    console.print(_figures_table(run.figures))


def _phase_table(phase: Phase, series: Sequence[Series]) -> Table:
    table = Table(title=phase.title, title_justify="left")
    table.add_column("contestant")
    for heading in ("per s", f"÷ {phase.base}", "p50 ms", "p99 ms", *(f"CPU {group}" for group in CPU_GROUPS)):
        table.add_column(heading, justify="right")
    table.add_column("other answers")
    for one in series:
        base = rate_of_base(one, phase, series)
        others = [f"{name}: {count}" for name, count in one.outcomes.items() if name != one.contestant.expected]
        table.add_row(
            one.contestant.name,
            f"{one.rate:,.0f}",
            f"{one.rate / base:.3f}" if base else "-",
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
            *(f"{one.cpu_ms(group):.3f}" for group in CPU_GROUPS),
            ", ".join(others),
        )
    return table


def _figures_table(figures: Sequence[Figure]) -> Table:
    table = Table(title="Judged figures (ratios of the medians above; ✓ reaches the goal)", title_justify="left")
    table.add_column("figure")
    for heading in ("goal", "aim", "measured"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for figure in figures:
        sign = "≤ " if figure.at_most else "≥ "
        goal, aim = f"{sign}{figure.goal:g}", f"{sign}{figure.aim:g}"
        if figure.measured is None:
            table.add_row(figure.name, goal, aim, "-", "")
            continue
        style = "green" if figure.reaches(figure.aim) else "yellow" if figure.is_reached else "red"
        mark = Text("✓" if figure.is_reached else "✗", style)
        table.add_row(figure.name, goal, aim, Text(f"{figure.measured:.2f}", style), mark)
    return table


def _client_notes(series: Iterable[Series]) -> list[str]:
    return [
        f"{one.contestant.name}: the load generator was busy {one.cpu_share('client'):.0%} of the time"
        for one in series
        if one.contestant.name != LOAD_GENERATOR and one.cpu_share("client") > _CLIENT_LIMIT
    ]


def document(run: Run) -> dict[str, Any]:
    """The run as JSON. Times are in the units that their names end in; CPU is in milliseconds per expected answer."""
    return {
        "schema": SCHEMA_VERSION,
        "started_at": run.started_at.astimezone(UTC).isoformat(),
        "seconds": round(run.seconds, 1),
        "quick": run.quick,
        "pace": asdict(run.pace),
        "machine": {
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(),
            "python": sys.version.split()[0],
            **run.versions,
        },
        "phases": [
            {"name": phase.name, "title": phase.title, "contestants": [_contestant(one) for one in series]}
            for phase, series in run.phases
        ],
        "figures": [{**asdict(figure), "is_reached": figure.is_reached} for figure in run.figures],
        "notes": list(run.notes),
    }


def _contestant(one: Series) -> dict[str, Any]:
    return {
        **asdict(one.contestant),
        "expected": one.contestant.expected,
        "median": {
            "per_second": one.rate,
            "p50_ms": one.p50_ms,
            "p99_ms": one.p99_ms,
            "max_ms": one.max_ms,
            "slowest_share": one.slowest_share,
            "cpu_ms": {group: one.cpu_ms(group) for group in CPU_GROUPS},
        },
        "outcomes": one.outcomes,
        "rounds": [asdict(result) for result in one.results],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
