"""The command line of the stress test: `python -m stress_test [SCENARIO] [options]`."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import typer
import uvloop
from rich.console import Console

from stress_test.document import document, document_of_all
from stress_test.errors import EXIT_PASSED, EXIT_VIOLATED, StressTestError, UsageError
from stress_test.history import QueuePlan
from stress_test.options import (
    DEFAULT_URL,
    AdminKey,
    Claims,
    ClaimsEach,
    Concurrency,
    Connections,
    Coupons,
    Duration,
    Grace,
    JsonFile,
    Late,
    MaxLength,
    MaxUnknown,
    MaxWait,
    Pace,
    Plentiful,
    Quiet,
    Quota,
    Rate,
    Rounds,
    Seed,
    StartsIn,
    SustainedConnections,
    Timeout,
    Urls,
    Users,
)
from stress_test.report import print_report, progress_bar
from stress_test.runner import Run, Target, run_scenario
from stress_test.scenarios import SCENARIOS, Sizes

DEFAULT_SCENARIO = "flash-sale"

# A paragraph is one line, because typer keeps line ends; \b keeps the spaces of a list.
_HELP = (
    "Send claims to a running service, and verify the result from its answers and by reading it back.\n\n"
    f"The default scenario is {DEFAULT_SCENARIO}: 100 concurrent claims on a coupon with 5 units. "
    "Every run creates new coupons, so it can be repeated on any service. "
    "Latencies are from sending a claim to reading its answer, on connections that are already open; "
    "percentiles are by nearest rank. SCENARIO --help lists the options of a scenario.\n\n"
    "\b\n"
    "Exit status:\n"
    "  0   all expectations held\n"
    "  1   an expectation was violated; it is named\n"
    "  2   wrong usage: an option, a missing or refused admin key, too few open files\n"
    "  69  the service cannot be reached, or cannot create the coupons\n"
)
app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    help=_HELP,
)


def _target(
    urls: list[str] | None,
    admin_key: str,
    rounds: int,
    connections: int | None,
    timeout: float,
    max_unknown: int = 0,
    grace: float = 5.0,
) -> Target:
    """Check the options that typer cannot check.

    Raises:
        UsageError: a URL or the admin key is invalid.
    """
    cleaned = tuple(url.rstrip("/") for url in urls or [DEFAULT_URL])
    for url in cleaned:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"{url!r} is not a URL of a service: pass --url as http://host:port.")
    if not admin_key:
        raise UsageError(
            "An admin key is needed to create coupons: "
            "set CLAIMSVC_ADMIN_KEY or pass --admin-key, a key whose SHA-256 is in the service's CLAIMSVC_ADMIN_KEYS."
        )
    if not (admin_key.isascii() and admin_key.isprintable()) or " " in admin_key:
        raise UsageError("The admin key has a character that HTTP headers cannot have: check CLAIMSVC_ADMIN_KEY.")
    return Target(cleaned, admin_key, rounds, connections, timeout, max_unknown, grace)


def _run(name: str, sizes: Sizes, target: Target, json_file: Path | None, quiet: bool) -> None:
    """Run one scenario and exit with its status."""
    [run] = _run_all({name: sizes}, target, json_file, quiet)
    _finish([run], document(run), json_file)


def _run_all(wanted: Mapping[str, Sizes], target: Target, json_file: Path | None, quiet: bool) -> list[Run]:
    """Run scenarios one after another and print each result.

    Raises:
        UsageError: the folder for the result does not exist. Checked before the run.
    """
    console = Console()
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UsageError(f"The folder of --json {json_file} does not exist: create it, or pass another file.")
    runs: list[Run] = []
    for name, sizes in wanted.items():
        with progress_bar(name, quiet) as progress:
            runs.append(uvloop.run(run_scenario(SCENARIOS[name], sizes, target, progress)))
        print_report(runs[-1], console, quiet)
    return runs


def _finish(runs: Sequence[Run], result: Mapping[str, object], json_file: Path | None) -> None:
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as failure:
            raise UsageError(f"--json {json_file} cannot be written: {failure.strerror}.") from failure
    raise typer.Exit(EXIT_VIOLATED if any(run.violations for run in runs) else EXIT_PASSED)


def _new_seed() -> int:
    return secrets.randbelow(2**32)


@app.command("flash-sale")
def flash_sale(
    urls: Urls = None,
    admin_key: AdminKey = "",
    claims: Claims = 100,
    quota: Quota = 5,
    rounds: Rounds = 1,
    connections: Connections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Many users claim one scarce coupon at once: exactly the quota succeeds, all others get sold-out."""
    target = _target(urls, admin_key, rounds, connections, timeout)
    _run("flash-sale", Sizes(claims=claims, quota=quota), target, json_file, quiet)


@app.command("double-dip")
def double_dip(
    urls: Urls = None,
    admin_key: AdminKey = "",
    claims: Claims = 10,
    quota: Quota = 5,
    rounds: Rounds = 1,
    connections: Connections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """One user claims one coupon many times at once: one claim succeeds, all others get already-claimed."""
    target = _target(urls, admin_key, rounds, connections, timeout)
    _run("double-dip", Sizes(claims=claims, quota=quota), target, json_file, quiet)


@app.command()
def stampede(
    urls: Urls = None,
    admin_key: AdminKey = "",
    claims: Claims = 1000,
    quota: Quota = 1,
    rounds: Rounds = 1,
    connections: Connections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Many users claim the last unit: one claim succeeds, all others get sold-out."""
    target = _target(urls, admin_key, rounds, connections, timeout)
    _run("stampede", Sizes(claims=claims, quota=quota), target, json_file, quiet)


@app.command("many-coupons")
def many_coupons(
    urls: Urls = None,
    admin_key: AdminKey = "",
    coupons: Coupons = 20,
    claims: ClaimsEach = 50,
    quota: Quota = 5,
    seed: Seed = None,
    rounds: Rounds = 1,
    connections: Connections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Many coupons are claimed at once, in random order: each sells exactly its quota."""
    target = _target(urls, admin_key, rounds, connections, timeout)
    sizes = Sizes(claims=claims, quota=quota, coupons=coupons, seed=_new_seed() if seed is None else seed)
    _run("many-coupons", sizes, target, json_file, quiet)


@app.command()
def sustained(
    urls: Urls = None,
    admin_key: AdminKey = "",
    rate: Rate = 200.0,
    duration: Duration = 10.0,
    coupons: Coupons = 1,
    quota: Plentiful = None,
    max_unknown: MaxUnknown = 0,
    rounds: Rounds = 1,
    connections: SustainedConnections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """New users claim at a fixed rate: nothing is oversold, lost or refused without cause.

    Latencies are from the time when a claim was due, so a stall shows in every claim that it delayed.
    """
    target = _target(urls, admin_key, rounds, connections, timeout, max_unknown)
    sizes = Sizes(quota=quota, coupons=coupons, rate=rate, duration_seconds=duration)
    _run("sustained", sizes, target, json_file, quiet)


@app.command()
def queue(
    urls: Urls = None,
    admin_key: AdminKey = "",
    claims: Users = 500,
    quota: Quota = 50,
    rate: Pace = 10,
    concurrency: Concurrency = 5,
    max_wait: MaxWait = 10,
    max_length: MaxLength = 100,
    grace: Grace = 5.0,
    max_unknown: MaxUnknown = 0,
    rounds: Rounds = 1,
    connections: Connections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Many users join a queue at once, each tenth twice: no more than may wait do, all at the pace and in order.

    Every ticket has one end, and exactly as many units are given as tickets are claimed.
    """
    target = _target(urls, admin_key, rounds, connections, timeout, max_unknown, grace)
    plan = QueuePlan(rate, concurrency, max_wait, max_length)
    _run("queue", Sizes(claims=claims, quota=quota, queue=plan), target, json_file, quiet)


@app.command()
def draw(
    urls: Urls = None,
    admin_key: AdminKey = "",
    claims: Users = 300,
    late: Late = 50,
    quota: Quota = 320,
    starts_in: StartsIn = 5.0,
    rate: Pace = 50,
    concurrency: Concurrency = 10,
    max_wait: MaxWait = 60,
    max_length: MaxLength = 1000,
    grace: Grace = 5.0,
    max_unknown: MaxUnknown = 0,
    rounds: Rounds = 1,
    connections: Connections = None,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Users join before the start of a coupon and are drawn by lot: the order is the one of the published seed.

    The digest of the seed is read before anybody joins; those who join after the start come after those drawn.
    """
    target = _target(urls, admin_key, rounds, connections, timeout, max_unknown, grace)
    plan = QueuePlan(rate, concurrency, max_wait, max_length, "draw")
    sizes = Sizes(claims=claims, quota=quota, queue=plan, late=late, starts_in_seconds=starts_in)
    _run("draw", sizes, target, json_file, quiet)


@app.command("all")
def every(
    urls: Urls = None,
    admin_key: AdminKey = "",
    duration: Duration = 10.0,
    rounds: Rounds = 1,
    timeout: Timeout = 30.0,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """All scenarios in turn, at their default sizes; --duration applies to sustained."""
    target = _target(urls, admin_key, rounds, None, timeout)
    sizes = {name: replace(scenario.defaults, seed=_new_seed()) for name, scenario in SCENARIOS.items()}
    sizes["sustained"] = replace(sizes["sustained"], duration_seconds=duration)
    runs = _run_all(sizes, target, json_file, quiet)
    _finish(runs, document_of_all(runs), json_file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; by default those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] != "--help"):
        given.insert(0, DEFAULT_SCENARIO)
    try:
        app(given, prog_name="python -m stress_test")
    except StressTestError as failure:
        print(f"stress_test: {failure}", file=sys.stderr)
        sys.exit(failure.exit_status)


if __name__ == "__main__":
    main()
