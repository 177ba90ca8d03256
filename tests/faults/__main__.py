"""The command line of the fault suite: `python -m tests.faults faults` and `soak`, from the checkout's root."""

import asyncio
import random
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop
from rich.console import Console

from claimsvc.errors import ClaimsvcError
from tests.faults.report import document, print_table, totals
from tests.faults.scenario import Context, Row, Scenario, open_context, scenarios
from tests.faults.soak import soak as soak_once
from tests.support.instance import ClusterError

_FOLDER = Path("build/faults")
_CLAIMS = 1_000_000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Seed = Annotated[int | None, typer.Option(help="Draws everything that is random.", show_default="a new one")]
Json = Annotated[Path, typer.Option("--json", help="Where the JSON goes.")]


@app.command()
def faults(
    seed: Seed = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Round after round for so long.", show_default=f"until {_CLAIMS:,} claims were tried"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of this number, or scenarios whose name contains this; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Each scenario once and no more, unless --minutes is given.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="At the lengths of production (a lock lives 20 s) and more often: over an hour."),
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Show what there is, and what is missing to run it.")] = False,
    json_file: Json = _FOLDER / "faults.json",
) -> None:
    """Run every fault of the table against real servers; exit with 1 if anything did not hold.

    Unless --full is given a lock lives for a second or two, and a fault as long as shows what it does: some seconds for
    each scenario, about twenty minutes for all of it.
    """
    chosen = [each for each in scenarios() if _is_wanted(each, only or [])]
    console = Console(highlight=False, soft_wrap=True)
    if not chosen:
        raise typer.BadParameter("there is no such scenario; --list shows them", param_hint="--only")
    if show:
        for each in chosen:
            console.print(f"{each.fault:>3}  {each.name}  {_missing(each)}")
        return
    if quick and full:
        raise typer.BadParameter("it goes with --minutes, and not with --quick", param_hint="--full")
    seed = seed if seed is not None else secrets.randbits(32)
    console.print(f"seed {seed}")
    runnable = [each for each in chosen if each.needs() is None]
    until = _Until(runnable, minutes, once=quick and minutes is None)
    rows = _run(lambda: _rounds(runnable, until, seed, full, console))
    _finish(rows, chosen, seed, json_file, console)


@app.command()
def soak(
    seed: Seed = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="For how long.")] = 10.0,
    json_file: Json = _FOLDER / "soak.json",
) -> None:
    """Random faults, one upon the other, under steady load on three instances; the same figures."""
    seed = seed if seed is not None else secrets.randbits(32)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"seed {seed}")

    async def run() -> list[Row]:
        with open_context(full=True, kept=_FOLDER / "kept", report=console.print) as context:
            return [await soak_once(context, random.Random(seed), minutes * 60)]

    _finish(_run(run), [], seed, json_file, console)


class _Until:
    """When the rounds end: never before every scenario's fault has been there."""

    def __init__(self, chosen: Sequence[Scenario], minutes: float | None, *, once: bool) -> None:
        self._chosen = {each.name for each in chosen}
        self._ends = time.monotonic() + minutes * 60 if minutes is not None else None
        self._once = once

    def is_over(self, rows: Sequence[Row]) -> bool:
        if self._chosen - {row.name for row in rows if row.fired}:
            # A fault that was tried and was not there is a row that did not hold, and is told at the end.
            return bool(self._chosen <= {row.name for row in rows})
        if self._once:
            return True
        if self._ends is not None:
            return time.monotonic() >= self._ends
        return sum(row.tried for row in rows) >= _CLAIMS


async def _rounds(chosen: Sequence[Scenario], until: _Until, seed: int, full: bool, console: Console) -> list[Row]:
    rows: list[Row] = []
    number = 0
    with open_context(full=full, kept=_FOLDER / "kept", report=console.print) as context:
        while not until.is_over(rows):
            number += 1
            for each in chosen:
                if number > 1 and until.is_over(rows):
                    break
                row = await run_one(each, context, random.Random(f"{seed}/{number}/{each.name}"))
                rows.append(row)
                held = "held" if row.held else "DID NOT HOLD"
                console.print(
                    f"{number}. {row.fault:>3} {row.name}: {held}, fired {row.fired}, {row.tried:,} claims tried, "
                    f"{row.seconds:.0f} s{''.join(f'; {note}' for note in row.notes)}"
                )
                for violation in row.violations[:20]:
                    console.print(f"       {violation}", markup=False)
    return rows


async def run_one(scenario: Scenario, context: Context, rng: random.Random) -> Row:
    """Run it; a cluster that broke is a row that did not hold, and the others are run all the same."""
    began = time.monotonic()
    try:
        return await scenario.run(context, rng)
    except (ClusterError, ClaimsvcError, OSError) as error:
        return Row.broken(scenario.fault, scenario.name, f"{type(error).__name__}: {error}", time.monotonic() - began)


def _run(rounds: object) -> list[Row]:
    # SIGTERM is like Ctrl-C: everything is stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows: list[Row] = runner.run(rounds())  # type: ignore[operator]
        return rows


def _finish(rows: list[Row], chosen: Sequence[Scenario], seed: int, json_file: Path, console: Console) -> None:
    skipped = {f"{each.fault} {each.name}": reason for each in chosen if (reason := each.needs()) is not None}
    print_table(rows, console if console.is_terminal else Console(width=150, highlight=False))
    for name, reason in skipped.items():
        console.print(f"skipped: {name}: {reason}")
    told = totals(rows)
    console.print(
        f"{told.tried:,} claims tried, {told.acknowledged:,} acknowledged; {told.lost} lost, {told.oversold} oversold, "
        f"{told.phantom} phantom, {told.falsely_refused} falsely refused"
    )
    if told.tickets:
        console.print(f"{told.tickets:,} tickets, {told.starts:,} starts")
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_bytes(orjson.dumps(document(rows, skipped, seed), option=orjson.OPT_INDENT_2))
    console.print(f"Written: {json_file}")
    broken = [row for row in rows if not row.held]
    for row in broken:
        console.print(f"DID NOT HOLD: {row.fault} {row.name} (seed {seed})")
    if broken or not rows:
        raise typer.Exit(1)


def _is_wanted(scenario: Scenario, only: Sequence[str]) -> bool:
    return not only or any(word == scenario.fault or (not word.isdigit() and word in scenario.name) for word in only)


def _missing(scenario: Scenario) -> str:
    reason = scenario.needs()
    return f"(cannot run here: {reason})" if reason is not None else ""


def main() -> None:
    """A failure of our own is its message; others keep their traceback. Interrupted, it ends with status 130."""
    try:
        app()
    except (ClusterError, ClaimsvcError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
