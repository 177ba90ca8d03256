"""`claimsvc user`: what is stored about users."""

from dataclasses import asdict
from typing import Annotated

import typer

from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import AsJson, Yes, check_user_id, confirm, os_operator, print_json, say

app = typer.Typer(help="Erase users, directly in the database.", no_args_is_help=True)


@app.callback()
def _user() -> None:
    # Without a callback, typer would take the only command for the group itself.
    pass


@app.command("erase")
def erase_user(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="The user's id, as in claims.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user: replace the id in all claims, and remove it from lists and stored responses. Audited."""
    from claimsvc.application import users

    check_user_id(user_id, "ID")
    confirm(f"Erase {user_id}? This cannot be undone.", yes)
    erased = on_storage(lambda storage: users.erase(storage.erasure, os_operator(), user_id))
    if as_json:
        print_json(asdict(erased))
        return
    say(
        f"{erased.claims} claims of {erased.coupons} coupons and {erased.tickets} tickets now belong to "
        f"{erased.erased_as}; removed {erased.list_entries} list entries and {erased.answers} stored responses."
    )
