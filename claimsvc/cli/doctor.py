"""`claimsvc doctor`: what is wrong, and how to mend it."""

import asyncio
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from claimsvc import server
from claimsvc.cli.terminal import AsJson, print_json
from claimsvc.config import load_database_settings, load_settings
from claimsvc.doctor import Finding, Level, examine, examine_database
from claimsvc.doctor.settings import refused_settings
from claimsvc.errors import SettingsError

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.WRONG: "red"}


def doctor(as_json: AsJson = False) -> None:
    """Check settings, database, schema and masters, and say what is wrong and how to mend it.

    Every check runs, whatever the others find. Exit status: 0 nothing is wrong (there may be warnings), 1 something is,
    78 settings are.
    """
    status = server.EXIT_OK
    try:
        findings = asyncio.run(examine(load_settings()))
    except SettingsError as error:
        status = server.EXIT_SETTINGS
        findings = refused_settings(error) + _without_masters()
    if status == server.EXIT_OK and any(finding.level is Level.WRONG for finding in findings):
        status = server.EXIT_FAILED
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    raise typer.Exit(status)


def _without_masters() -> list[Finding]:
    """What can be checked while settings are wrong: the database, if those that lead to it are right."""
    try:
        return asyncio.run(examine_database(load_database_settings()))
    except SettingsError:
        return []


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        level = f"[{_COLOURS[finding.level]}]{finding.level:<7}[/]"
        mend = f". To mend it: {finding.mend}" if finding.mend else ""
        console.print(f"{level}  {escape(f'{finding.subject}: {finding.found}{mend}')}")
