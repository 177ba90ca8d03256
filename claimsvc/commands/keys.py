"""`claimsvc key`: admin keys."""

import hashlib
import secrets

import typer
from rich.console import Console

app = typer.Typer(help="Make admin keys.", no_args_is_help=True)


@app.command("create")
def create_key() -> None:
    """Make an admin key. It is shown once; the service is given its digest only."""
    key = secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"The key, for whoever creates coupons (shown this once):\n  {key}")
    console.print(f"Its digest, for the service (several are separated by commas):\n  CLAIMSVC_ADMIN_KEYS={digest}")
