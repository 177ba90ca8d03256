"""`claimsvc coupon`: coupons, directly in the database."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.bootstrap import open_storage
from claimsvc.commands.shared import AsJson, CouponName, check_coupon_name, check_text, print_json, print_table
from claimsvc.config import load_database_settings
from claimsvc.domain import Coupon, CouponDetail, CouponExists, StrategyName
from claimsvc.errors import ClaimsvcError

_MOST_CLAIMANTS = 1000  # as many as the API shows

app = typer.Typer(help="Create and look up coupons, directly in the database.", no_args_is_help=True)


@app.command("create")
def create_coupon(
    name: CouponName,
    amount: Annotated[int, typer.Option(min=1, max=domain.MAX_AMOUNT, help="Units to give away.")],
    strategy: Annotated[
        StrategyName, typer.Option(help="How its claims are admitted; the README says which to choose.")
    ] = StrategyName.REDLOCK,
) -> None:
    """Create a coupon."""
    check_coupon_name(name)

    async def create() -> Coupon | CouponExists:
        async with open_storage(load_database_settings()) as storage:
            return await storage.create_coupon(name, amount, strategy)

    if isinstance(asyncio.run(create()), CouponExists):
        raise ClaimsvcError(f"there is a coupon {name} already; nothing was changed")
    Console().print(f"Created {name} with {amount} units.", highlight=False, soft_wrap=True)


@app.command("list")
def list_coupons(
    search: Annotated[str | None, typer.Option(help="Only names that contain this, in any case.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List coupons by name."""

    check_text(search or "", "--search")

    async def read() -> list[Coupon]:
        found: list[Coupon] = []
        async with open_storage(load_database_settings()) as storage:
            while len(found) < limit:
                size = min(limit - len(found), 1000)
                page = await storage.coupons(search=search, after=found[-1].name if found else None, limit=size)
                found.extend(page)
                if len(page) < size:
                    break
        return found

    coupons = asyncio.run(read())
    if as_json:
        print_json([asdict(coupon) for coupon in coupons])
    else:
        _print_table(coupons)


@app.command("show")
def show_coupon(name: CouponName, as_json: AsJson = False) -> None:
    """Show a coupon and who has claimed it, oldest first (the first 1000)."""
    check_coupon_name(name)

    async def read() -> CouponDetail | None:
        async with open_storage(load_database_settings()) as storage:
            return await storage.coupon(name, claimants=_MOST_CLAIMANTS)

    detail = asyncio.run(read())
    if detail is None:
        raise ClaimsvcError(f"there is no coupon {name}")
    if as_json:
        print_json({**asdict(detail.coupon), "claimed_by": detail.claimed_by})
        return
    _print_table([detail.coupon])
    for user_id in detail.claimed_by:
        Console().print(user_id, markup=False, highlight=False, soft_wrap=True)


def _print_table(coupons: list[Coupon]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    for heading in ("strategy", "created"):
        table.add_column(heading)
    for heading in ("amount", "remaining"):
        table.add_column(heading, justify="right")
    for coupon in coupons:
        made = coupon.created_at.strftime("%Y-%m-%d %H:%M:%S %Z")
        table.add_row(escape(coupon.name), coupon.strategy, made, str(coupon.amount), str(coupon.remaining_amount))
    print_table(table)
