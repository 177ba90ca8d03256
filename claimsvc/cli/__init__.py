"""The commands of `claimsvc`: one module for each group. Each reads its settings, asks one room, and prints.

A command's module is imported once it is known that it is asked for: what it needs takes a second, and help does not.
"""

from typing import Annotated

import typer

from claimsvc.cli.outline import Commands

_EPILOG = (
    "Settings are CLAIMSVC_* variables; docs/settings.md lists them. Exit status: 0 done, 1 failed, 2 wrong usage, "
    "78 wrong settings, 130 interrupted."
)

app = typer.Typer(
    cls=Commands,
    help="Claims limited-stock coupons: many at once, each exactly once.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # takes a while, and hardly anybody asks

        typer.echo(f"claimsvc {version('claimsvc')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """What can be asked of the program as a whole."""


__all__ = ["app"]
