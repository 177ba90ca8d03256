"""`claimsvc key`: keys for whoever runs the service, and for programs."""

import asyncio
import hashlib
import secrets
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.application import keys as key_cases
from claimsvc.cli.terminal import AsJson, check_text, os_operator, print_json, print_table
from claimsvc.config import load_database_settings
from claimsvc.connect import open_keys
from claimsvc.domain import ApiKey, Scope
from claimsvc.errors import ClaimsvcError

_SECONDS_OF_A_DAY = 86_400
_MOST_DAYS = 3650
_MOST_LABEL_CHARACTERS = 100
# So that a key that was published by mistake is found by whoever looks for such.
_PREFIX = "claimsvc_"

app = typer.Typer(help="Make, list and revoke keys.", no_args_is_help=True)


@app.command("create")
def create_key(
    label: Annotated[str, typer.Option(help="What it is for; listings and the audit show it.")] = "",
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; once for each.")] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=_MOST_DAYS, help="After how many days it ends; never without.")
    ] = None,
    digest_only: Annotated[
        bool, typer.Option("--digest-only", help="Keep nothing: print a key for everything, and its digest.")
    ] = False,
) -> None:
    """Make a key. It is shown once; the service keeps its SHA-256 only."""
    key = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode())
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if digest_only:
        console.print(f"The key, which may do everything (shown this once):\n  {key}")
        console.print(
            f"Its digest, for the service (several are separated by commas):\n  "
            f"CLAIMSVC_ADMIN_KEYS={digest.hexdigest()}"
        )
        return
    check_text(label, "--label")
    if not label.strip() or len(label) > _MOST_LABEL_CHARACTERS:
        raise typer.BadParameter(
            f"say in 1 to {_MOST_LABEL_CHARACTERS} characters what it is for", param_hint="--label"
        )
    if not scope:
        raise typer.BadParameter(f"say what it may do: {', '.join(Scope)}", param_hint="--scope")

    async def create() -> ApiKey:
        async with open_keys(load_database_settings()) as keys:
            return await key_cases.create(
                keys,
                os_operator(),
                digest.digest(),
                label=label,
                scopes=frozenset(scope),
                expires_seconds=None if expires_days is None else float(expires_days * _SECONDS_OF_A_DAY),
            )

    made = asyncio.run(create())
    console.print(f"The key {made.id} (shown this once):\n  {key}")
    ends = "never" if made.expires_at is None else f"{made.expires_at:%Y-%m-%d %H:%M:%S %Z}"
    console.print(f"It is for {', '.join(sorted(made.scopes))}, and expires: {ends}.")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List every key there ever was, oldest first, without what it is itself."""

    async def read() -> list[ApiKey]:
        async with open_keys(load_database_settings()) as keys:
            return await key_cases.every(keys)

    found = asyncio.run(read())
    if as_json:
        print_json([_shown(key) for key in found])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "label", "scopes", "created", "expires", "revoked"):
        table.add_column(heading, overflow="fold")
    for key in found:
        times = (key.created_at, key.expires_at, key.revoked_at)
        shown = ["-" if at is None else f"{at:%Y-%m-%d %H:%M:%S %Z}" for at in times]
        table.add_row(key.id, escape(key.label), " ".join(sorted(key.scopes)), *shown)
    print_table(table)


@app.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `claimsvc key list` shows it.")]) -> None:
    """End a key. Instances that have just seen it may believe it for 5 s more."""
    check_text(key_id, "ID")

    async def revoke() -> bool:
        async with open_keys(load_database_settings()) as keys:
            return await key_cases.revoke(keys, os_operator(), key_id)

    if not asyncio.run(revoke()):
        raise ClaimsvcError(f"there is no key {key_id} that has not been revoked")
    Console(highlight=False, soft_wrap=True, markup=False).print(f"Revoked {key_id}.")


def _shown(key: domain.ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "label": key.label,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
