"""What keeps the databases in order: `migrate` and `reconcile`."""

import asyncio

from rich.console import Console

from claimsvc import logs
from claimsvc.bootstrap import migrate as migrate_schema
from claimsvc.bootstrap import open_reconciler
from claimsvc.config import load_database_settings, load_settings
from claimsvc.jobs import Drift


def migrate() -> None:
    """Bring the schema of CLAIMSVC_DATABASE_URL up to date. Safe to run again, and from several places at once."""
    migrate_schema(load_database_settings().database_url)
    Console().print("The schema is up to date.")


def reconcile() -> None:
    """Set right the counters in Redis that have drifted from PostgreSQL. The service does so by itself, too."""
    settings = load_settings()
    logs.configure("warning", settings.log_format)  # a master that is down keeps its counters

    async def run() -> list[Drift]:
        async with open_reconciler(settings) as reconcile_once:
            return await reconcile_once()

    drifts = asyncio.run(run())
    console = Console(highlight=False, soft_wrap=True)
    for drift in drifts:
        console.print(
            f"{drift.coupon_name}: the counter said {drift.counted}, PostgreSQL says {drift.remaining_amount}"
        )
    console.print(f"{len(drifts)} counters had drifted; they are learnt anew.")
