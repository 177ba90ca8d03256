"""Commands that maintain the databases: `migrate`, `reconcile`, `sweep` and `purge`."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from claimsvc.cli.running import run
from claimsvc.cli.terminal import AsJson, os_actor, print_json, say
from claimsvc.errors import ClaimsvcError

if TYPE_CHECKING:
    from claimsvc.config import Settings
    from claimsvc.jobs import Jobs

_Result = TypeVar("_Result")


def migrate() -> None:
    """Create or upgrade the schema of CLAIMSVC_DATABASE_URL. Repeated and simultaneous runs are safe."""
    # Imported here, because help must not wait for Alembic.
    from claimsvc import logs
    from claimsvc.bootstrap import migrate as migrate_schema
    from claimsvc.config import load_database_settings

    logs.configure("warning", "auto")  # a warning says which index could not be created
    migrate_schema(load_database_settings().database_url)
    say("The schema is up to date.")


def reconcile() -> None:
    """Reset the counters in Redis that differ from PostgreSQL. The service also does this by itself."""
    drifts = _run("reconcile", _settings(), lambda jobs: jobs.reconcile())
    for drift in drifts:
        say(f"{drift.coupon_name}: the counter was {drift.counted}, PostgreSQL has {drift.remaining_amount}")
    say(f"{len(drifts)} counters had drifted and were reset.")


def sweep() -> None:
    """Return the units of expired holds. The service also does this by itself."""
    units = _run("sweep", _settings(), lambda jobs: jobs.sweep())
    say(f"{units} holds had expired; their units were returned.")


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete expired responses, replaced lists, and coupons that ended long ago. The service also does this by itself.

    A coupon is deleted CLAIMSVC_PURGE_AFTER_DAYS after it ended or was archived, with its claims and codes, and the
    audit records it. With 0, the default, coupons are kept.
    """
    settings = _settings()
    report = _run("purge", settings, lambda jobs: jobs.purgeable() if dry_run else jobs.purge(actor=os_actor()))
    if as_json:
        print_json({"dry_run": dry_run, **asdict(report)})
        return
    say(
        f"{'Would delete' if dry_run else 'Deleted'} {report.answers} responses, {report.list_entries} list entries, "
        f"{report.coupons} coupons, {report.claims} claims, {report.codes} codes and {report.tickets} tickets."
    )
    if not settings.purge_after_days:
        say("Coupons are kept forever: CLAIMSVC_PURGE_AFTER_DAYS is 0.")


def _settings() -> "Settings":
    from claimsvc.config import load_settings  # imported here, because help must not wait for it

    return load_settings()


def _run(name: str, settings: "Settings", job: Callable[["Jobs"], Awaitable[_Result | None]]) -> _Result:
    """Run a job, and return its result.

    Raises:
        ClaimsvcError: an instance of the service runs it at the moment.
    """
    # Imported here, because help must not wait for the clients of both databases.
    from claimsvc.bootstrap import open_jobs

    async def with_jobs() -> _Result | None:
        async with open_jobs(settings) as jobs:
            return await job(jobs)

    # Warnings are shown, because a master that is down keeps its counters.
    result = run(with_jobs(), log_level="warning", log_format=settings.log_format)
    if result is None:
        raise ClaimsvcError(f"an instance of the service runs the job `{name}` now; nothing was done here")
    return result
