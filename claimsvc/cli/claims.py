"""`claimsvc claims`: claims, directly from the database."""

import asyncio
import sys

import typer

from claimsvc.application import claims
from claimsvc.cli.terminal import CouponName, check_coupon_name, os_operator
from claimsvc.config import load_database_settings
from claimsvc.connect import open_repositories
from claimsvc.domain import UnknownCoupon
from claimsvc.errors import ClaimsvcError

app = typer.Typer(help="Hand claims on to other programs.", no_args_is_help=True)


@app.callback()
def _claims() -> None:
    # Without this, typer would take the only command for the group itself.
    pass


@app.command("export")
def export_claims(name: CouponName) -> None:
    """Print every claim of a coupon as CSV, oldest first, ended ones too. Exits with 1 if it is not whole."""
    check_coupon_name(name)

    async def export() -> None:
        async with open_repositories(load_database_settings()) as database:
            parts = await claims.export(database.exports, os_operator(), name)
            if isinstance(parts, UnknownCoupon):
                raise ClaimsvcError(f"there is no coupon {name}")
            async for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()

    asyncio.run(export())
