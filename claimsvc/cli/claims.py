"""`claimsvc claims`: claims, directly from the database."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    check_coupon_name,
    check_user_id,
    os_operator,
    print_json,
    print_table,
    refusal_error,
    say,
)
from claimsvc.domain import ClaimState, NotYourClaim, UnknownCoupon

if TYPE_CHECKING:
    from claimsvc.postgres import Repositories

app = typer.Typer(help="List and export claims, directly from the database.", no_args_is_help=True)


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


@app.command("list")
def list_claims(
    user: Annotated[str, typer.Option("--user", help="The user whose claims are listed.")],
    states: Annotated[
        list[ClaimState] | None, typer.Option("--state", help="Only claims in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of claims to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List a user's claims of all coupons, newest first, with their codes."""
    from claimsvc.application import claims

    check_user_id(user)
    wanted = frozenset(states or ClaimState)
    found = on_storage(
        lambda storage: claims.of_user(storage.claims, os_operator(), user, states=wanted, before=None, limit=limit)
    )
    if isinstance(found, NotYourClaim):
        raise refusal_error(found)
    if as_json:
        print_json([{**asdict(each.claim), "type": each.type, "benefit": each.benefit} for each in found])
        return
    if not found:
        say("There is no such claim.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("claimed at", "coupon", "state", "code", "claim"):
        table.add_column(heading, overflow="fold")
    for each in found:
        claim = each.claim
        made = claim.claimed_at.strftime("%Y-%m-%d %H:%M:%S %Z")
        table.add_row(made, escape(claim.coupon_name), claim.state, escape(claim.code or ""), claim.id)
    print_table(table)
