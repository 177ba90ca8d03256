"""The command line of the bench: `python -m tests.bench [--quick]`, from the checkout's root."""

import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from claimsvc.config import Settings
from claimsvc.embedded import default_state_dir
from claimsvc.errors import ClaimsvcError
from tests.bench import cpu
from tests.bench.contestants import COMBINING, DEFAULT_STRATEGY, STRATEGIES, THREE, THREE_APART, Phase, phases
from tests.bench.figures import judged_figures
from tests.bench.picture import draw
from tests.bench.programs import BenchError
from tests.bench.report import Run, by_name, document, print_run
from tests.bench.rounds import Pace, Series, run_phase
from tests.bench.servers import overridden_settings
from tests.bench.testbed import Testbed, open_testbed

_FOLDER = Path("build/bench")
_FULL = Pace(rounds=5, warm_up_seconds=0.5, seconds=3.0)
_QUICK = Pace(rounds=5, warm_up_seconds=0.2, seconds=0.6)
_MOST_CONNECTIONS = 4096

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what the judged figures need, in about five minutes.")
    ] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Interleaved rounds.", show_default="5")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.05, help="How long each is measured in a round.", show_default="3; quick 0.6")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only phases of this name and contestants whose name contains it, and their base; may be repeated."
        ),
    ] = None,
    json_file: Annotated[Path, typer.Option("--json", help="Where the JSON goes.")] = _FOLDER / "bench.json",
    svg_file: Annotated[Path, typer.Option("--svg", help="Where the picture goes.")] = _FOLDER / "bench.svg",
    state_dir: Annotated[
        Path | None, typer.Option(help="Where data is kept meanwhile, on the disk to be measured; emptied first.")
    ] = None,
) -> None:
    """Measure the service beside a bare handler and two other ways to do its job. It prints, and judges nothing."""
    if not cpu.is_available():
        raise BenchError("CPU time is read from /proc, so the bench runs on Linux only.")
    standard = _QUICK if quick else _FULL
    pace = replace(standard, rounds=rounds or standard.rounds, seconds=seconds or standard.seconds)
    _raise_file_limit()
    interruption = _Interruption()
    folder = state_dir or default_state_dir(_FOLDER.absolute())
    try:
        run = _run(folder, pace, interruption, quick=quick, only=only or [])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_run(run, Console(width=None if sys.stdout.isatty() else 160))
    for path, content in (
        (json_file, orjson.dumps(document(run), option=orjson.OPT_INDENT_2)),
        (svg_file, draw(run.phases).encode()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    Console().print(f"Written: {json_file}, {svg_file}", highlight=False, soft_wrap=True)


class _Interruption:
    """SIGTERM and Ctrl-C end the run, and everything is stopped in order.

    The exception that a signal raises is lost where Python ignores exceptions (a finalizer, a callback of a weak
    reference), so that the run asks again after each measurement.
    """

    def __init__(self) -> None:
        self._came = False
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._interrupt)

    def check(self) -> None:
        """Raises KeyboardInterrupt: a signal came."""
        if self._came:
            raise KeyboardInterrupt

    def _interrupt(self, *_: object) -> None:
        self._came = True
        raise KeyboardInterrupt


def _run(folder: Path, pace: Pace, interruption: _Interruption, *, quick: bool, only: Sequence[str]) -> Run:
    started_at, started = datetime.now(UTC), time.monotonic()
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def report(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {text}")

    notes = [f"{name}={value} is set, and not the default" for name, value in overridden_settings().items()]
    if COMBINING.removeprefix("CLAIMSVC_").lower() not in Settings.model_fields:
        notes.append(f"the service knows no {COMBINING} yet: '{THREE_APART}' may be as '{THREE}'")
    measured: list[tuple[Phase, list[Series]]] = []
    with open_testbed(folder, report) as testbed:
        report("Starting the service")
        known = [DEFAULT_STRATEGY, *filter(testbed.coupons.knows_strategy, STRATEGIES[1:])]
        notes += [f"the service knows no strategy {name} yet" for name in STRATEGIES if name not in known]
        for phase in _chosen(phases(known, quick=quick), only):
            report(f"{phase.title}: {len(phase.contestants)} contestants, {pace.rounds} rounds")
            measured.append((phase, _measure(testbed, phase, pace, console, interruption)))
        interruption.check()
        versions = testbed.versions()
    figures = judged_figures(by_name(measured))
    return Run(pace, quick, measured, figures, notes, versions, started_at, time.monotonic() - started)


def _measure(testbed: Testbed, phase: Phase, pace: Pace, console: Console, interruption: _Interruption) -> list[Series]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(phase.title, total=pace.rounds * len(phase.contestants))

        def measured() -> None:
            interruption.check()
            progress.advance(task)

        return run_phase(testbed, phase, pace, measured)


def _chosen(found: Sequence[Phase], only: Sequence[str]) -> list[Phase]:
    """The phases with what was asked for; a phase's base stays where there is anything else, to compare with."""
    if not only:
        return list(found)
    chosen: list[Phase] = []
    for phase in found:
        wanted = {one for one in phase.contestants if any(word in one.name or word == phase.name for word in only)}
        if wanted:
            kept = tuple(one for one in phase.contestants if one in wanted or one.name == phase.base)
            chosen.append(replace(phase, contestants=kept))
    return chosen


def _raise_file_limit() -> None:
    """Every process that is started inherits it: a server needs a file for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_CONNECTIONS
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))


def main() -> None:
    """A failure of our own is its message; others keep their traceback. Interrupted, it ends with status 130."""
    try:
        app()
    except (BenchError, ClaimsvcError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
