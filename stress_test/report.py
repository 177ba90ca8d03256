"""The report for people: a progress bar during a run, then tables and the verdict."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from stress_test.document import claims_per_second, outcome_rows
from stress_test.latency import histogram
from stress_test.runner import Progress, Run

_BAR_WIDTH = 40
# Most violations that are printed; the JSON document contains all of them.
_VIOLATIONS_SHOWN = 20
# Most winners that are named.
_WINNERS_SHOWN = 10


class _Bar(Progress):
    def __init__(self, bar: RichProgress, name: str) -> None:
        self._bar = bar
        self._name = name
        self._total = 0
        self._task = bar.add_task(name, total=None)

    def expect(self, claims: int) -> None:
        self._total += claims
        self._bar.update(self._task, total=self._total)

    def answered(self) -> None:
        self._bar.advance(self._task)

    def stage(self, text: str) -> None:
        self._bar.update(self._task, description=f"{self._name}: {text}")


@contextmanager
def progress_bar(name: str, quiet: bool) -> Iterator[Progress]:
    """Show a progress bar on standard error while the context is active, if that is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Progress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, name)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def _outcome_table(run: Run, table_box: box.Box) -> Table:
    table = Table(box=table_box)
    table.add_column("outcome")
    for column in ("count", "expected", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="right")
    for row in outcome_rows(run):
        latency = row.latency_seconds
        table.add_row(
            Text(row.outcome),
            str(row.count),
            "any" if row.expected is None else str(row.expected),
            *(
                _milliseconds(value)
                for value in ((latency.p50, latency.p95, latency.p99, latency.max) if latency else (None,) * 4)
            ),
            style="red" if row.expected is not None and row.count != row.expected else "",
        )
    return table


def _histogram_table(run: Run, mark: str) -> Table:
    buckets = histogram([attempt.latency_seconds for attempt in run.attempts])
    most = max((bucket.count for bucket in buckets), default=1)
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    for bucket in buckets:
        # A non-empty bucket has at least one mark.
        width = max(round(_BAR_WIDTH * bucket.count / most), 1 if bucket.count else 0)
        table.add_row(f"to {bucket.upper_seconds * 1000:g} ms", str(bucket.count), mark * width)
    return table


def _title(run: Run) -> str:
    names = [history.coupon.name for one in run.rounds for history in one.histories]
    first = run.rounds[0].histories[0].coupon
    coupons = f"coupon {first.name}" if len(names) == 1 else f"{len(names)} coupons, {first.name} to {names[-1]}"
    return f"{run.scenario}: {len(run.attempts)} claims on {coupons}, {first.amount} units each"


def _read_back(run: Run) -> str:
    """Summarize the read-back; for a single coupon, with its winners."""
    states = [state for one in run.rounds for state in one.states if state is not None]
    recorded = sum(len(state.claims) for state in states)
    remaining = sum(state.remaining_amount for state in states)
    line = f"read back: claims recorded: {recorded}, remaining_amount: {remaining}"
    if len(states) == 1 and len(states[0].claimed_by) <= _WINNERS_SHOWN:
        line += f", claimed_by: {', '.join(states[0].claimed_by)}"
    return line


def print_report(run: Run, console: Console, quiet: bool) -> None:
    """Print the result and the verdict.

    Args:
        run: with at least one round.
        console: to print to; plain text without control sequences if it is not a terminal.
        quiet: print only the verdict.
    """
    plain = not console.is_terminal
    if not quiet:
        console.print(_title(run), markup=False, highlight=False, soft_wrap=True)
        console.print(_outcome_table(run, box.ASCII2 if plain else box.ROUNDED))
        console.print("latency, from the release of a claim (or its scheduled time) to its answer:", highlight=False)
        console.print(_histogram_table(run, "█" if console.encoding.startswith("utf") else "#"))
        claiming = sum(one.claiming_seconds for one in run.rounds)
        console.print(
            f"{claims_per_second(run):.0f} claims/s achieved over {claiming:.3f} s of claiming"
            + (f", target {run.sizes.rate:g} claims/s" if run.sizes.rate else ""),
            highlight=False,
        )
        console.print(_read_back(run), markup=False, highlight=False, soft_wrap=True)
        for number, one in enumerate(run.rounds, 1):
            for note in one.notes:
                console.print(f"note, round {number}: {note}", markup=False, highlight=False, soft_wrap=True)
    _print_verdict(run, console)


def _print_verdict(run: Run, console: Console) -> None:
    if not run.violations:
        console.print(Text(f"PASS {run.scenario}", style="bold green"))
        return
    failed = [(number, violation) for number, one in enumerate(run.rounds, 1) for violation in one.violations]
    console.print(Text(f"FAIL {run.scenario}: violated expectations: {len(failed)}", style="bold red"))
    for number, violation in failed[:_VIOLATIONS_SHOWN]:
        where = f"round {number}, coupon {violation.coupon_name}"
        line = f"  {violation.expectation} ({where}): {violation.sentence}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(failed) > _VIOLATIONS_SHOWN:
        console.print(f"  and {len(failed) - _VIOLATIONS_SHOWN} more", highlight=False)
