"""`claimsvc user`: what is kept of users."""

import asyncio
import re
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from claimsvc import domain
from claimsvc.application import users
from claimsvc.cli.terminal import AsJson, os_operator, print_json
from claimsvc.config import load_database_settings
from claimsvc.connect import open_repositories

app = typer.Typer(help="Forget users, directly in the database.", no_args_is_help=True)


@app.callback()
def _user() -> None:
    # Without this, typer would take the only command for the group itself.
    pass


@app.command("erase")
def erase_user(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="As claims have it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a user: its claims stay, under a name that leads to nobody; lists and stored answers lose it. Audited."""
    if len(user_id) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.USER_ID_PATTERN, user_id):
        raise typer.BadParameter(f"use 1 to {domain.MAX_NAME_LENGTH} visible ASCII characters", param_hint="ID")
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("not a terminal: pass --yes to confirm", param_hint="--yes")
        typer.confirm(f"Forget {user_id}? There is no way back.", abort=True)

    async def erase() -> domain.Erased:
        async with open_repositories(load_database_settings()) as database:
            return await users.erase(database.erasure, os_operator(), user_id)

    erased = asyncio.run(erase())
    if as_json:
        print_json(asdict(erased))
        return
    Console(highlight=False, soft_wrap=True, markup=False).print(
        f"{erased.claims} claims of {erased.coupons} coupons are {erased.erased_as}'s now; removed "
        f"{erased.list_entries} entries of lists and {erased.answers} stored answers."
    )
