"""`claimsvc key`: keys for operators and programs."""

import hashlib
import secrets
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import AsJson, check_text, os_operator, print_json, print_table, say
from claimsvc.cli.usage import must_be
from claimsvc.domain import Scope
from claimsvc.errors import ClaimsvcError

_SECONDS_OF_A_DAY = 86_400
_MOST_DAYS = 3650
_MOST_LABEL_CHARACTERS = 100
# Secret scanners recognize a published key by it.
_PREFIX = "claimsvc_"

app = typer.Typer(help="Create, list and revoke keys.", no_args_is_help=True)


@app.command("create")
def create_key(
    label: Annotated[str, typer.Option(help="What the key is for; listings and the audit show it.")] = "",
    scope: Annotated[
        list[Scope] | None, typer.Option(help="A permission of the key; repeat the option for several.")
    ] = None,
    expires_days: Annotated[
        int | None,
        typer.Option(min=1, max=_MOST_DAYS, help="Days until the key expires; without it, the key never does."),
    ] = None,
    digest_only: Annotated[
        bool,
        typer.Option(
            "--digest-only", help="Store nothing: print a key with every permission, and its digest for the settings."
        ),
    ] = False,
) -> None:
    """Create a key. It is shown only once; the service stores its SHA-256 digest."""
    from claimsvc.application import keys as key_cases

    key = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode())
    if digest_only:
        say(f"The key, with every permission (shown only once):\n  {key}")
        say(f"Its digest, for the service (separate several by commas):\n  CLAIMSVC_ADMIN_KEYS={digest.hexdigest()}")
        return
    check_text(label, "--label")
    if len(label) > _MOST_LABEL_CHARACTERS or not domain.is_visible_line(label):
        rule = f"1 to {_MOST_LABEL_CHARACTERS} characters on one line, of which the first is visible"
        raise must_be(f"what the key is for, in {rule}", "--label", "the shop")
    if not scope:
        raise must_be(f"one or more of {', '.join(Scope)}", "--scope")
    made = on_storage(
        lambda storage: key_cases.create(
            storage.keys,
            os_operator(),
            digest.digest(),
            label=label,
            scopes=frozenset(scope),
            expires_seconds=None if expires_days is None else float(expires_days * _SECONDS_OF_A_DAY),
        )
    )
    say(f"The key {made.id} (shown only once):\n  {key}")
    ends = "never" if made.expires_at is None else f"{made.expires_at:%Y-%m-%d %H:%M:%S %Z}"
    say(f"Its scopes are {', '.join(sorted(made.scopes))}. It expires: {ends}.")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List all keys, oldest first, including expired and revoked ones. The keys themselves are not stored."""
    from claimsvc.application import keys as key_cases

    found = on_storage(lambda storage: key_cases.every(storage.keys))
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
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `claimsvc key list`.")],
) -> None:
    """Revoke a key. Instances that used it recently may accept it for up to 5 s more."""
    from claimsvc.application import keys as key_cases

    check_text(key_id, "ID")
    if not on_storage(lambda storage: key_cases.revoke(storage.keys, os_operator(), key_id)):
        raise ClaimsvcError(f"there is no key {key_id} that is not revoked yet")
    say(f"Revoked {key_id}.")


def _shown(key: domain.ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "label": key.label,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
