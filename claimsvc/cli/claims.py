"""`claimsvc claims`: claims, directly from the database."""

import sys
from typing import TYPE_CHECKING

import typer

from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import CouponName, check_coupon_name, os_operator, refusal_error
from claimsvc.domain import UnknownCoupon

if TYPE_CHECKING:
    from claimsvc.postgres import Repositories

app = typer.Typer(help="Export claims, directly from the database.", no_args_is_help=True)


@app.callback()
def _claims() -> None:
    # Without a callback, typer would take the only command for the group itself.
    pass


@app.command("export")
def export_claims(name: CouponName) -> None:
    """Print every claim of a coupon as CSV, oldest first, including ended ones. Exit status 1: it is incomplete."""
    from claimsvc.application import claims

    check_coupon_name(name)

    async def export(storage: "Repositories") -> None:
        parts = await claims.export(storage.exports, os_operator(), name)
        if isinstance(parts, UnknownCoupon):
            raise refusal_error(parts, f"there is no coupon {name}")
        async for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()

    on_storage(export)
