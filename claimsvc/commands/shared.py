"""What several commands take and print."""

import json
import re
from typing import Annotated

import typer

from claimsvc import domain

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
CouponName = Annotated[str, typer.Argument(help="Letters, digits and . _ - (at most 255, not dots alone).")]


def check_coupon_name(name: str) -> None:
    """Raise `typer.BadParameter` unless the contract allows the name."""
    if len(name) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.COUPON_NAME_PATTERN, name):
        raise typer.BadParameter(
            f"use letters, digits and . _ - (at most {domain.MAX_NAME_LENGTH}, not dots alone)", param_hint="NAME"
        )


def print_json(value: object) -> None:
    """JSON for programs; what JSON does not know, such as a time, becomes its text."""
    typer.echo(json.dumps(value, indent=2, default=str))
