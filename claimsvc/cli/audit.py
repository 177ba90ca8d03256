"""`claimsvc audit`: who did what."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.application import audit as audit_cases
from claimsvc.cli.terminal import AsJson, os_operator, print_json, print_table
from claimsvc.config import load_database_settings
from claimsvc.connect import open_repositories
from claimsvc.http.framework.parameters import AuditQuery
from claimsvc.http.resources.audit.routes import entry_body


def audit(
    subject: Annotated[str, typer.Option(help="Only what was done to this: a coupon's name, a code, an id.")] = "",
    subject_type: Annotated[str, typer.Option(help="Only what was done to such: coupon, claim, key.")] = "",
    actor: Annotated[str, typer.Option(help="Only what they did, named as entries name them.")] = "",
    action: Annotated[str, typer.Option(help="Only this, such as coupon.change.")] = "",
    since: Annotated[str | None, typer.Option(help="From when on, such as 2026-11-27T09:00:00+09:00.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Who did what, when, to which coupon, claim or key; newest first. With --subject-type claim also its making."""
    asked = {"subject": subject, "subject_type": subject_type, "actor": actor, "action": action}
    try:
        query = AuditQuery.model_validate(asked if since is None else {**asked, "since": since})
    except ValidationError as error:
        option = str(error.errors()[0]["loc"][0])
        rule = AuditQuery.model_fields[option].description
        raise typer.BadParameter(f"it must be {rule}", param_hint="--" + option.replace("_", "-")) from None

    async def read() -> list[domain.AuditEntry]:
        async with open_repositories(load_database_settings()) as database:
            return await audit_cases.entries(database.audit_log, os_operator(), query.filter(), after=None, limit=limit)

    found = asyncio.run(read())
    if as_json:
        print_json([asdict(entry_body(entry)) for entry in found])
        return
    if not found:
        Console(highlight=False).print("There is no such entry.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("at", "actor", "action", "subject", "reason", "details"):
        table.add_column(heading, overflow="fold")
    for entry in found:
        details = json.dumps(entry.details, ensure_ascii=False) if entry.details else ""
        subject_shown = f"{entry.subject_type} {entry.subject}"
        shown = (f"{entry.at:%Y-%m-%d %H:%M:%S %Z}", entry.actor, entry.action, subject_shown, entry.reason, details)
        table.add_row(*map(escape, shown))
    print_table(table)
