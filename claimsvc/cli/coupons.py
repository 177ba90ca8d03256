"""`claimsvc coupon`: coupons, directly in the database."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    check_coupon_name,
    check_coupon_type,
    check_search,
    check_text,
    in_json,
    os_operator,
    print_json,
    print_table,
    refusal_error,
    say,
)
from claimsvc.cli.usage import json_of, option_of, refused_options
from claimsvc.domain import Coupon, CouponDetail, CouponExists, CouponState, ListedCoupon, StrategyName

if TYPE_CHECKING:
    from claimsvc.ports import ChangeAnswer
    from claimsvc.postgres import Repositories

_PAGE = 1000
# The options that are JSON.
_OF_JSON = frozenset({"benefit", "metadata", "rules", "queue", "waiting_list"})

app = typer.Typer(help="Create, change and look up coupons, directly in the database.", no_args_is_help=True)

StartsAt = Annotated[
    str | None, typer.Option(help="When the coupon can first be claimed, such as 2026-11-27T09:00:00+09:00.")
]
EndsAt = Annotated[str | None, typer.Option(help="When the coupon can no longer be claimed.")]
PerUserLimit = Annotated[
    int | None,
    typer.Option(
        min=1, max=domain.MAX_PER_USER_LIMIT, help="Units that one user may have at a time; a new coupon has 1."
    ),
]
Uses = Annotated[
    int | None,
    typer.Option(min=1, max=domain.MAX_USES, help="How often each claim may be redeemed; a new coupon has 1."),
]
ClaimsPerUser = Annotated[
    str | None,
    typer.Option(
        metavar="INTEGER",
        help="Claims that one user may make in all, ended ones included; by default 10 more than --per-user-limit.",
    ),
]
CouponType = Annotated[str | None, typer.Option("--type", help="A name that groups coupons.")]
Benefit = Annotated[str | None, typer.Option(help="""JSON, such as '{"percent_off": 15}'.""")]
Metadata = Annotated[str | None, typer.Option(help="""JSON, such as '{"channel": "app"}'.""")]
Rules = Annotated[
    str | None, typer.Option("--rules", help="""Who may claim, as JSON, such as '{"holds": ["welcome"]}'.""")
]
Queue = Annotated[
    str | None,
    typer.Option(
        help="The queue in which claims wait, as JSON, such as "
        """'{"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100}'."""
    ),
]

WaitingList = Annotated[
    str | None,
    typer.Option(
        help="Lets claims wait for units that come back once the coupon is sold out, and holds these for so long, as "
        """JSON, such as '{"hold_seconds": 600}'."""
    ),
]


@app.command("create")
def create_coupon(
    name: CouponName,
    amount: Annotated[int, typer.Option(min=1, max=domain.MAX_AMOUNT, help="Units that can be claimed.")],
    strategy: Annotated[
        StrategyName, typer.Option(help="How claims are admitted; docs/concepts.md helps you choose.")
    ] = StrategyName.REDLOCK,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    paused: Annotated[
        bool, typer.Option("--paused", help="Create the coupon paused: it cannot be claimed yet.")
    ] = False,
    per_user_limit: PerUserLimit = None,
    claims_per_user: ClaimsPerUser = None,
    coupon_type: CouponType = None,
    benefit: Benefit = None,
    metadata: Metadata = None,
    uses: Uses = None,
    eligibility: Rules = None,
    queue: Queue = None,
    waiting_list: WaitingList = None,
) -> None:
    """Create a coupon. Audited."""
    from claimsvc.application import coupons

    check_coupon_name(name)
    rules = _given_rules(
        starts_at,
        ends_at,
        per_user_limit,
        claims_per_user,
        coupon_type,
        benefit,
        metadata,
        uses,
        eligibility,
        queue,
        waiting_list,
    )
    campaign = domain.Campaign(**rules, paused=paused)

    async def work(storage: "Repositories") -> tuple[Any, Sequence[domain.CouponWarning]]:
        made = await coupons.create(storage.campaigns, os_operator(), name, amount, strategy, campaign)
        if not isinstance(made, Coupon):
            return made, ()
        return made, await coupons.warnings(storage.coupons, name, campaign)

    made, warnings = on_storage(work)
    if isinstance(made, domain.PeriodIsEmpty):
        raise typer.BadParameter("the coupon would end before it starts", param_hint="--ends-at")
    if isinstance(made, CouponExists):
        raise refusal_error(made, f"the coupon {name} exists already; nothing was changed")
    say(f"Created {name} with {amount} units.")
    _warn(warnings)


@app.command("change")
def change_coupon(
    name: CouponName,
    amount: Annotated[
        int | None, typer.Option(min=1, max=domain.MAX_AMOUNT, help="Units in total, including claimed ones.")
    ] = None,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    paused: Annotated[
        bool | None, typer.Option("--pause/--resume", help="While the coupon is paused, it cannot be claimed.")
    ] = None,
    per_user_limit: PerUserLimit = None,
    claims_per_user: ClaimsPerUser = None,
    coupon_type: CouponType = None,
    benefit: Benefit = None,
    metadata: Metadata = None,
    uses: Uses = None,
    eligibility: Rules = None,
    queue: Queue = None,
    waiting_list: WaitingList = None,
) -> None:
    """Change a coupon. Omitted options keep their values; 'none' removes a value that may be absent. Audited."""
    change = _given_rules(
        starts_at,
        ends_at,
        per_user_limit,
        claims_per_user,
        coupon_type,
        benefit,
        metadata,
        uses,
        eligibility,
        queue,
        waiting_list,
    )
    change |= {field: value for field, value in (("amount", amount), ("paused", paused)) if value is not None}
    if not change:
        raise typer.BadParameter("nothing to change; see --help", param_hint="OPTIONS")
    detail = _changed(name, change)
    say(f"Changed {name}: {detail.coupon.remaining_amount} of {detail.coupon.amount} units are left.")


@app.command("archive")
def archive_coupon(name: CouponName) -> None:
    """Archive a coupon for good: it cannot be claimed and is not listed. Its claims stay. Audited."""
    _changed(name, {}, archive=True)
    say(f"Archived {name}.")


def _changed(name: str, change: Mapping[str, Any], *, archive: bool = False) -> CouponDetail:
    from claimsvc.application import coupons

    check_coupon_name(name)

    async def work(storage: "Repositories") -> tuple["ChangeAnswer", Sequence[domain.CouponWarning]]:
        if archive:
            return await coupons.archive(storage.campaigns, os_operator(), name), ()
        changed = await coupons.change(storage.campaigns, os_operator(), name, change)
        if not isinstance(changed, CouponDetail):
            return changed, ()
        return changed, await coupons.warnings(storage.coupons, name, changed.campaign)

    changed, warnings = on_storage(work)
    match changed:
        case CouponDetail():
            _warn(warnings)
            return changed
        case domain.AmountBelowClaimed(claimed):
            raise refusal_error(changed, f"{claimed} units of {name} are claimed or held; nothing was changed")
        case domain.AmountIsCodes():
            raise refusal_error(
                changed, f"the amount of {name} is the number of its codes; add some with `claimsvc codes`"
            )
        case domain.PeriodIsEmpty():
            raise refusal_error(changed, f"{name} would end before it starts; nothing was changed")
        case domain.UnknownCoupon():
            raise refusal_error(changed, f"there is no coupon {name}")
        case _:
            raise refusal_error(changed)


def _warn(warnings: Sequence[domain.CouponWarning]) -> None:
    """Print warnings to standard error, because standard output is for what was asked for."""
    for warning in warnings:
        typer.echo(f"warning: at {warning.pointer}: {warning.detail}", err=True)


def _given_rules(
    starts_at: str | None,
    ends_at: str | None,
    per_user_limit: int | None,
    claims_per_user: str | None,
    coupon_type: str | None,
    benefit: str | None,
    metadata: str | None,
    uses: int | None,
    eligibility: str | None,
    queue: str | None,
    waiting_list: str | None,
) -> dict[str, Any]:
    """The given values by the names of `domain.Campaign`, validated as the API validates them.

    Raises:
        typer.BadParameter: a value is invalid.
    """
    asked: dict[str, Any] = {"starts_at": starts_at, "ends_at": ends_at, "type": coupon_type}
    asked |= {"benefit": benefit, "metadata": metadata, "per_user_limit": per_user_limit, "rules": eligibility}
    asked |= {"claims_per_user": _integer(claims_per_user), "uses": uses, "queue": queue}
    asked["waiting_list"] = waiting_list
    given = {field: None if value == "none" else value for field, value in asked.items() if value is not None}
    if not given:
        return {}
    # Imported here, because help and the other commands must not wait for pydantic and these models.
    from pydantic import ValidationError

    from claimsvc.representations.coupons import ChangeCoupon

    for field in _OF_JSON & given.keys():
        if (text := given[field]) is not None:
            given[field] = json_of(str(text), field, ChangeCoupon)
    for field in given.keys() - _OF_JSON:
        check_text(str(given[field]), option_of(field))
    try:
        return dict(ChangeCoupon.model_validate(given).change())
    except ValidationError as error:
        raise refused_options(error, ChangeCoupon) from None


def _integer(text: str | None) -> int | str | None:
    """An option that is a number or `none`; what is neither is left to the model."""
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) else text


@app.command("list")
def list_coupons(
    search: Annotated[
        str | None, typer.Option(help="Only coupons whose name contains this text, ignoring case.")
    ] = None,
    coupon_type: Annotated[
        str | None, typer.Option("--type", help="Only coupons of this type; '' for coupons without a type.")
    ] = None,
    states: Annotated[
        list[CouponState] | None,
        typer.Option("--state", help="Only coupons in this state; may be repeated. By default all but archived."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of coupons to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List coupons by name."""
    from claimsvc.application import coupons

    check_search(search or "")
    if coupon_type:
        check_coupon_type(coupon_type)
    wanted = frozenset(states or domain.EVERY_STATE_BUT_ARCHIVED)
    matching = domain.CouponFilter(search or "", coupon_type, wanted)

    async def read(storage: "Repositories") -> list[ListedCoupon]:
        found: list[ListedCoupon] = []
        while len(found) < limit:
            size = min(limit - len(found), _PAGE)
            after = found[-1].coupon.name if found else None
            page = await coupons.listed(storage.coupons, matching, after=after, limit=size)
            found.extend(page)
            if len(page) < size:
                break
        return found

    found = on_storage(read)
    if as_json:
        # Imported here, because help must not wait for pydantic.
        from claimsvc.representations.coupons import listed_coupon_body

        print_json([listed_coupon_body(each) for each in found])
    else:
        _print_table([each.coupon for each in found], found)


@app.command("show")
def show_coupon(name: CouponName, as_json: AsJson = False) -> None:
    """Show a coupon, its rules, and its first 1000 claimants, oldest first."""
    from claimsvc.application import coupons

    check_coupon_name(name)
    detail = on_storage(lambda storage: coupons.get(storage.coupons, os_operator(), name))
    if isinstance(detail, domain.UnknownCoupon):
        raise refusal_error(detail, f"there is no coupon {name}")
    # Imported here, because help must not wait for pydantic.
    from claimsvc.representations.coupons import CampaignBody, CouponBody, campaign_body, campaign_detail_body

    if as_json:
        print_json(campaign_detail_body(detail))
        return
    _print_table([detail.coupon])
    shown, usual = campaign_body(detail.coupon, detail.campaign), campaign_body(detail.coupon, domain.PLAIN)
    for field in (each.name for each in fields(CampaignBody)):
        if field not in CouponBody.__dataclass_fields__ and getattr(shown, field) != getattr(usual, field):
            say(f"{field}: {in_json(getattr(shown, field))}")
    for user_id in detail.claimed_by:
        say(user_id)
    if (further := detail.coupon.claimed_count - len(detail.claimed_by)) > 0:
        say(f"... and {further} more; `claimsvc claims export {shlex.quote(name)}` has all claims.")


def _print_table(rows: list[Coupon], listed: Sequence[ListedCoupon] = ()) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    for heading in ("state", "type") if listed else ():
        table.add_column(heading)
    for heading in ("strategy", "created"):
        table.add_column(heading)
    for heading in ("amount", "remaining"):
        table.add_column(heading, justify="right")
    for place, coupon in enumerate(rows):
        terms = (listed[place].state, escape(listed[place].type or "")) if listed else ()
        made = coupon.created_at.strftime("%Y-%m-%d %H:%M:%S %Z")
        table.add_row(
            escape(coupon.name), *terms, coupon.strategy, made, str(coupon.amount), str(coupon.remaining_amount)
        )
    print_table(table)
