"""The commands of `claimsvc`: one module per group. Each reads its settings, calls one use case, and prints the result.

The module of a command is imported when the command is used. It imports at its top only what the command's own help
needs; a function imports what running takes, such as SQLAlchemy or pydantic, so that help and completion do not wait.
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
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # imported here, because it is slow and rarely needed

        typer.echo(f"claimsvc {version('claimsvc')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options of the program itself."""


__all__ = ["app"]
