"""`claimsvc claims`: claims, directly in the database."""

import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    Reason,
    check_coupon_name,
    check_reason,
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

app = typer.Typer(help="List, export and redeem claims, directly in the database.", no_args_is_help=True)

ClaimId = Annotated[str, typer.Argument(help="The claim's id, a UUID.")]


@app.command("export")
def export_claims(name: CouponName) -> None:
    """Print all claims of a coupon with codes as CSV, oldest first, ended ones too. Exit status 1: it is incomplete."""
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
        # Imported here, because help must not wait for pydantic.
        from claimsvc.representations.claims import user_claim_body

        print_json([user_claim_body(each) for each in found])
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


@app.command("redeem")
def redeem_claim(claim_id: ClaimId) -> None:
    """Redeem a claim, and its code if it has one: once, unless it has more uses. Audited."""
    from claimsvc.application import redemptions

    checked = _checked(claim_id)
    done = on_storage(lambda storage: redemptions.redeem(storage.claims, storage.codes, os_operator(), checked))
    match done:
        case domain.ClaimRedeemed():
            _print(done)
        case domain.AlreadyRedeemed():
            raise refusal_error(done, f"{claim_id} was redeemed before, as often as it may be")
        case domain.ClaimNotConfirmed():
            raise refusal_error(done, f"{claim_id} is only held; confirm it first")
        case domain.UnknownClaim():
            raise refusal_error(done, f"there is no claim {claim_id}")
        case _:
            raise refusal_error(done)


@app.command("unredeem")
def unredeem_claim(claim_id: ClaimId, reason: Reason) -> None:
    """Take back the last redemption of a claim, because it fell through. Audited."""
    from claimsvc.application import redemptions

    checked = _checked(claim_id)
    check_reason(reason)
    done = on_storage(lambda storage: redemptions.unredeem(storage.codes, os_operator(), checked, reason))
    match done:
        case domain.ClaimUnredeemed():
            _print(done)
        case domain.NotRedeemed():
            raise refusal_error(done, f"{claim_id} is not redeemed")
        case domain.UnknownClaim():
            raise refusal_error(done, f"there is no claim {claim_id}")
        case _:
            raise refusal_error(done)


def _checked(claim_id: str) -> str:
    try:
        return str(UUID(claim_id))
    except ValueError:
        raise typer.BadParameter(
            "must be a UUID, such as 019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90", param_hint="CLAIM_ID"
        ) from None


def _print(done: domain.ClaimRedeemed | domain.ClaimUnredeemed) -> None:
    claim = done.claim
    say(f"{claim.id} of {claim.coupon_name}: redeemed {done.redeemed_count} of {done.uses} times")
    for name, value in (("user_id", claim.user_id), ("code", claim.code), ("redeemed_at", done.redeemed_at)):
        if value is not None:
            say(f"  {name}: {value}")
