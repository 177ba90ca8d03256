"""What keeps the databases in order: `migrate`, `reconcile`, `sweep` and `purge`."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from claimsvc import logs
from claimsvc.bootstrap import migrate as migrate_schema
from claimsvc.bootstrap import open_jobs
from claimsvc.cli.terminal import AsJson, os_actor, print_json
from claimsvc.config import load_database_settings, load_settings
from claimsvc.domain import PurgeReport
from claimsvc.errors import ClaimsvcError
from claimsvc.jobs import Drift


def migrate() -> None:
    """Bring the schema of CLAIMSVC_DATABASE_URL up to date. Safe to run again, and from several places at once."""
    migrate_schema(load_database_settings().database_url)
    Console().print("The schema is up to date.")


def reconcile() -> None:
    """Set right the counters in Redis that have drifted from PostgreSQL. The service does so by itself, too."""
    settings = load_settings()
    logs.configure("warning", settings.log_format)  # a master that is down keeps its counters

    async def run() -> list[Drift] | None:
        async with open_jobs(settings) as jobs:
            return await jobs.reconcile()

    drifts = asyncio.run(run())
    if drifts is None:
        raise _elsewhere("reconciling")
    console = Console(highlight=False, soft_wrap=True)
    for drift in drifts:
        console.print(
            f"{drift.coupon_name}: the counter said {drift.counted}, PostgreSQL says {drift.remaining_amount}"
        )
    console.print(f"{len(drifts)} counters had drifted; they are learnt anew.")


def sweep() -> None:
    """Give back the units of holds that are over. The service does so by itself, too."""
    settings = load_settings()
    logs.configure("warning", settings.log_format)

    async def run() -> int | None:
        async with open_jobs(settings) as jobs:
            return await jobs.sweep()

    units = asyncio.run(run())
    if units is None:
        raise _elsewhere("sweeping")
    Console(highlight=False).print(f"{units} holds were over; their units are back.")


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody asks for any more: old answers, replaced lists, and coupons that are long over.

    Coupons that ended or were archived go after CLAIMSVC_PURGE_AFTER_DAYS, with their claims and codes, and the audit
    tells of it; with 0, the default, they stay. The service does all this by itself, too.
    """
    settings = load_settings()
    logs.configure("warning", settings.log_format)

    async def run() -> PurgeReport | None:
        async with open_jobs(settings) as jobs:
            return await (jobs.purgeable() if dry_run else jobs.purge(actor=os_actor()))

    report = asyncio.run(run())
    if report is None:
        raise _elsewhere("purging")
    if as_json:
        print_json({"dry_run": dry_run, **asdict(report)})
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{'Would remove' if dry_run else 'Removed'} {report.answers} answers, {report.list_entries} entries of lists, "
        f"{report.coupons} coupons, {report.claims} claims and {report.codes} codes."
    )
    if not settings.purge_after_days:
        console.print("Coupons stay for ever: CLAIMSVC_PURGE_AFTER_DAYS is 0.")


def _elsewhere(doing: str) -> ClaimsvcError:
    return ClaimsvcError(f"an instance is {doing} just now; nothing was done here")
