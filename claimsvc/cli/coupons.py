"""`claimsvc coupon`: coupons, directly in the database."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.application import coupons
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    check_coupon_name,
    check_text,
    os_operator,
    print_json,
    print_table,
)
from claimsvc.config import load_database_settings
from claimsvc.connect import open_repositories
from claimsvc.domain import Coupon, CouponDetail, CouponExists, StrategyName
from claimsvc.errors import ClaimsvcError
from claimsvc.ports import ChangeAnswer

app = typer.Typer(help="Create and look up coupons, directly in the database.", no_args_is_help=True)


_MOST = domain.MAX_AMOUNT
StartsAt = Annotated[str | None, typer.Option(help="From when, such as 2026-11-27T09:00:00+09:00.")]
EndsAt = Annotated[str | None, typer.Option(help="Until just before when.")]
PerUserLimit = Annotated[int | None, typer.Option(min=1, help="Units that one user may have at a time; 1 at first.")]
CouponType = Annotated[str | None, typer.Option("--type", help="What groups coupons.")]
Benefit = Annotated[str | None, typer.Option(help="""JSON, such as '{"percent_off": 15}'.""")]
Metadata = Annotated[str | None, typer.Option(help="""JSON, such as '{"channel": "app"}'.""")]
Rules = Annotated[
    str | None, typer.Option("--rules", help="""Who may claim: JSON, such as '{"holds": ["welcome"]}'.""")
]


@app.command("create")
def create_coupon(
    name: CouponName,
    amount: Annotated[int, typer.Option(min=1, max=_MOST, help="Units to give away.")],
    strategy: Annotated[
        StrategyName, typer.Option(help="How its claims are admitted; docs/concepts.md says which to choose.")
    ] = StrategyName.REDLOCK,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    paused: Annotated[bool, typer.Option("--paused", help="Nobody can claim it yet.")] = False,
    per_user_limit: PerUserLimit = None,
    coupon_type: CouponType = None,
    benefit: Benefit = None,
    metadata: Metadata = None,
    eligibility: Rules = None,
) -> None:
    """Create a coupon. Audited."""
    check_coupon_name(name)
    rules = asked_rules(starts_at, ends_at, per_user_limit, coupon_type, benefit, metadata, eligibility)
    campaign = domain.Campaign(**rules, paused=paused)

    async def create() -> object:
        async with open_repositories(load_database_settings()) as database:
            return await coupons.create(database.campaigns, os_operator(), name, amount, strategy, campaign)

    made = asyncio.run(create())
    if isinstance(made, domain.PeriodIsEmpty):
        raise typer.BadParameter("it would end before it starts", param_hint="--ends-at")
    if isinstance(made, CouponExists):
        raise ClaimsvcError(f"there is a coupon {name} already; nothing was changed")
    _say(f"Created {name} with {amount} units.")


@app.command("change")
def change_coupon(
    name: CouponName,
    amount: Annotated[int | None, typer.Option(min=1, max=_MOST, help="Units in all, claimed ones too.")] = None,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    paused: Annotated[bool | None, typer.Option("--pause/--resume", help="Nobody can claim it for now.")] = None,
    per_user_limit: PerUserLimit = None,
    coupon_type: CouponType = None,
    benefit: Benefit = None,
    metadata: Metadata = None,
    eligibility: Rules = None,
) -> None:
    """Change a coupon; what is not given stays, and 'none' takes a time, type, benefit or rules away. Audited."""
    change = asked_rules(starts_at, ends_at, per_user_limit, coupon_type, benefit, metadata, eligibility)
    change |= {field: value for field, value in (("amount", amount), ("paused", paused)) if value is not None}
    if not change:
        raise typer.BadParameter("say what to change; see --help", param_hint="OPTIONS")
    detail = _changed(name, change)
    _say(f"Changed {name}: {detail.coupon.remaining_amount} of {detail.coupon.amount} units are left.")


@app.command("archive")
def archive_coupon(name: CouponName) -> None:
    """Close a coupon for good: nobody can claim it, and no list shows it. Its claims stay. Audited."""
    _changed(name, {}, archive=True)
    _say(f"Archived {name}.")


def _changed(name: str, change: Mapping[str, Any], *, archive: bool = False) -> CouponDetail:
    check_coupon_name(name)

    async def ask() -> ChangeAnswer:
        async with open_repositories(load_database_settings()) as database:
            if archive:
                return await coupons.archive(database.campaigns, os_operator(), name)
            return await coupons.change(database.campaigns, os_operator(), name, change)

    match asyncio.run(ask()):
        case CouponDetail() as detail:
            return detail
        case domain.AmountBelowClaimed(claimed):
            raise ClaimsvcError(f"{claimed} units of {name} are claimed or held; nothing was changed")
        case domain.AmountIsCodes():
            raise ClaimsvcError(f"{name} has codes, and its amount is how many; `claimsvc codes` adds some")
        case domain.PeriodIsEmpty():
            raise ClaimsvcError(f"{name} would end before it starts; nothing was changed")
        case _:
            raise ClaimsvcError(f"there is no coupon {name}")


def asked_rules(
    starts_at: str | None,
    ends_at: str | None,
    per_user_limit: int | None,
    coupon_type: str | None,
    benefit: str | None,
    metadata: str | None,
    eligibility: str | None,
) -> dict[str, Any]:
    """The rules that were asked for, by the names of `domain.Campaign`, held to what the API asks of them.

    Raises:
        typer.BadParameter: one of them is not what it should be.
    """
    asked: dict[str, Any] = {"starts_at": starts_at, "ends_at": ends_at, "type": coupon_type}
    asked |= {"benefit": _json(benefit, "--benefit"), "metadata": _json(metadata, "--metadata")}
    asked |= {"per_user_limit": per_user_limit, "rules": _json(eligibility, "--rules")}
    # Imported here, because only creating and changing need them, and they take a while.
    from pydantic import ValidationError

    from claimsvc.http.resources.coupons.schemas import ChangeCoupon

    given = {field: None if value == "none" else value for field, value in asked.items() if value is not None}
    try:
        return dict(ChangeCoupon.model_validate(given).change())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(first["msg"], param_hint=option) from None


def _json(text: str | None, option: str) -> Any:
    if text is None or text == "none":
        return text
    check_text(text, option)
    try:
        return json.loads(text)
    except ValueError:
        raise typer.BadParameter("it is no JSON", param_hint=option) from None


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


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
        async with open_repositories(load_database_settings()) as database:
            while len(found) < limit:
                size = min(limit - len(found), 1000)
                page = await database.coupons.coupons(
                    search=search, after=found[-1].name if found else None, limit=size
                )
                found.extend(page)
                if len(page) < size:
                    break
        return found

    found = asyncio.run(read())
    if as_json:
        print_json([asdict(coupon) for coupon in found])
    else:
        _print_table(found)


@app.command("show")
def show_coupon(name: CouponName, as_json: AsJson = False) -> None:
    """Show a coupon, its rules and who has claimed it, oldest first (the first 1000)."""
    check_coupon_name(name)

    async def read() -> CouponDetail | domain.UnknownCoupon:
        async with open_repositories(load_database_settings()) as database:
            return await coupons.get(database.coupons, os_operator(), name)

    detail = asyncio.run(read())
    if isinstance(detail, domain.UnknownCoupon):
        raise ClaimsvcError(f"there is no coupon {name}")
    if as_json:
        print_json({**asdict(detail.coupon), **asdict(detail.campaign), "claimed_by": detail.claimed_by})
        return
    _print_table([detail.coupon])
    for rule, value in asdict(detail.campaign).items():
        if value != getattr(domain.PLAIN, rule):
            _say(f"{rule}: {value}")
    for user_id in detail.claimed_by:
        _say(user_id)


def _print_table(rows: list[Coupon]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    for heading in ("strategy", "created"):
        table.add_column(heading)
    for heading in ("amount", "remaining"):
        table.add_column(heading, justify="right")
    for coupon in rows:
        made = coupon.created_at.strftime("%Y-%m-%d %H:%M:%S %Z")
        table.add_row(escape(coupon.name), coupon.strategy, made, str(coupon.amount), str(coupon.remaining_amount))
    print_table(table)
