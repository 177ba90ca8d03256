"""`claimsvc audit`: who did what."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import AsJson, in_json, os_operator, print_json, print_table, say
from claimsvc.cli.usage import refused_options


def audit(
    subject: Annotated[
        str, typer.Option(help="Only entries about this subject: a coupon's name, a code, or the id of a claim or key.")
    ] = "",
    subject_type: Annotated[str, typer.Option(help="Only entries about this type: coupon, claim, key.")] = "",
    actor: Annotated[str, typer.Option(help="Only entries by this actor, named as entries show it.")] = "",
    action: Annotated[str, typer.Option(help="Only entries of this action, such as coupon.change.")] = "",
    since: Annotated[
        str | None, typer.Option(help="Only entries from this time on, such as 2026-11-27T09:00:00+09:00.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of entries to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List who did what and when, newest first. With --subject-type claim, it includes claims made."""
    # Imported here, because help must not wait for pydantic.
    from pydantic import ValidationError

    from claimsvc.application import audit as audit_cases
    from claimsvc.representations.audit import AuditSelection, entry_body

    asked = {"subject": subject, "subject_type": subject_type, "actor": actor, "action": action}
    try:
        selection = AuditSelection.model_validate(asked if since is None else {**asked, "since": since}).filter()
    except ValidationError as error:
        raise refused_options(error, AuditSelection) from None
    found = on_storage(
        lambda storage: audit_cases.entries(storage.audit_log, os_operator(), selection, after=None, limit=limit)
    )
    if as_json:
        print_json([entry_body(entry) for entry in found])
        return
    if not found:
        say("There is no such entry.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("at", "actor", "action", "subject", "reason", "details"):
        table.add_column(heading, overflow="fold")
    for entry in found:
        details = _told(entry.details)
        subject_shown = f"{entry.subject_type} {entry.subject}"
        shown = (f"{entry.at:%Y-%m-%d %H:%M:%S %Z}", entry.actor, entry.action, subject_shown, entry.reason, details)
        table.add_row(*map(escape, shown))
    print_table(table)


def _told(details: Mapping[str, Any]) -> str:
    """The details of an entry. Of a change: each field with its old and its new value."""
    changes = details.get("changes", {})
    told = [f"{field}: {in_json(each['old'])} → {in_json(each['new'])}" for field, each in changes.items()]
    others = {name: value for name, value in details.items() if name not in (("changes", "fields") if told else ())}
    return ", ".join([*told, *([in_json(others)] if others else [])])
