"""What several commands take and print."""

import json
import os
import pwd
import re
import socket
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from claimsvc import domain

_NO_TERMINAL_COLUMNS = 100_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
CouponName = Annotated[str, typer.Argument(help="Letters, digits and . _ - (at most 255, not dots alone).")]


def check_coupon_name(name: str) -> None:
    """Raise `typer.BadParameter` unless the contract allows the name."""
    if len(name) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.COUPON_NAME_PATTERN, name):
        raise typer.BadParameter(
            f"use letters, digits and . _ - (at most {domain.MAX_NAME_LENGTH}, not dots alone)", param_hint="NAME"
        )


def check_text(text: str, option: str) -> None:
    """Raise `typer.BadParameter` unless this is text: what is no UTF-8 comes as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("it is no UTF-8", param_hint=option) from None


def os_operator() -> domain.Caller:
    """Whoever runs this command, as a caller that may do everything."""
    return domain.operator(os_actor())


def os_actor() -> str:
    """Who runs this, as the system knows it: variables such as USER can be set to anything."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"os-user:{name}@{socket.gethostname()}"


def print_table(table: Table) -> None:
    """A table, fitted to the terminal; for everything else as wide as it needs, so that no name is broken."""
    Console(highlight=False, width=None if sys.stdout.isatty() else _NO_TERMINAL_COLUMNS).print(table)


def print_json(value: object) -> None:
    """JSON for programs; what JSON does not know, such as a time, becomes its text."""
    typer.echo(json.dumps(value, indent=2, default=str))
