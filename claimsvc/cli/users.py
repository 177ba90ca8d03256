"""`claimsvc user`: what is stored about users."""

import re
from dataclasses import asdict
from typing import Annotated

import typer

from claimsvc import domain
from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import AsJson, Yes, confirm, os_operator, print_json, say
from claimsvc.cli.usage import must_be

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

    if len(user_id) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.USER_ID_PATTERN, user_id):
        raise must_be(domain.USER_ID_RULE, "ID", "user-1")
    confirm(f"Erase {user_id}? This cannot be undone.", yes)
    erased = on_storage(lambda storage: users.erase(storage.erasure, os_operator(), user_id))
    if as_json:
        print_json(asdict(erased))
        return
    say(
        f"{erased.claims} claims of {erased.coupons} coupons now belong to {erased.erased_as}; removed "
        f"{erased.list_entries} list entries and {erased.answers} stored responses."
    )
