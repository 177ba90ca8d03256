"""`claimsvc doctor`: what is wrong, and how to fix it."""

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from claimsvc.cli.running import run
from claimsvc.cli.terminal import AsJson, print_json
from claimsvc.errors import EXIT_FAILED, EXIT_OK, EXIT_SETTINGS, SettingsError

if TYPE_CHECKING:
    from claimsvc.doctor import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


def doctor(as_json: AsJson = False) -> None:
    """Check the settings, the database, the schema and the masters; report what is wrong and how to fix it.

    All checks run, even if one finds something. Exit status: 0 nothing is wrong (there may be warnings), 1 something
    is wrong, 78 a setting is wrong.
    """
    # Imported here, because help must not wait for the clients of both databases.
    from claimsvc.config import load_settings
    from claimsvc.doctor import Level, examine
    from claimsvc.doctor.settings import refused_settings

    status = EXIT_OK
    try:
        findings = run(examine(load_settings()))
    except SettingsError as error:
        status = EXIT_SETTINGS
        findings = refused_settings(error) + _without_masters()
    if status == EXIT_OK and any(finding.level is Level.WRONG for finding in findings):
        status = EXIT_FAILED
    if as_json:
        print_json(findings)
    else:
        _print(findings)
    raise typer.Exit(status)


def _without_masters() -> list["Finding"]:
    """The findings about the database, if its own settings are right."""
    from claimsvc.config import load_database_settings  # imported here, as above
    from claimsvc.doctor import examine_database

    try:
        return run(examine_database(load_database_settings()))
    except SettingsError:
        return []


def _print(findings: list["Finding"]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        level = f"[{_COLOURS[finding.level]}]{finding.level:<7}[/]"
        mend = f". To fix it: {finding.mend}" if finding.mend else ""
        console.print(f"{level}  {escape(f'{finding.subject}: {finding.found}{mend}')}")
