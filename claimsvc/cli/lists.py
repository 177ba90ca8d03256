"""`claimsvc lists`: who may claim a coupon, and who may not, directly in the database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from claimsvc.application import eligibility
from claimsvc.cli.terminal import CouponName, check_coupon_name, os_operator
from claimsvc.config import load_database_settings
from claimsvc.connect import open_audience
from claimsvc.domain import ListKind, ListReplaced, UnknownCoupon
from claimsvc.errors import ClaimsvcError
from claimsvc.http.resources.eligibility.user_lists import BadListError, ListFormat, ListReader

_PIECE_BYTES = 65_536
_FORMATS = {".csv": ListFormat.CSV, ".ndjson": ListFormat.NDJSON, ".jsonl": ListFormat.NDJSON}

app = typer.Typer(help="Say who may claim a coupon, and who may not, directly in the database.", no_args_is_help=True)

Kind = Annotated[ListKind, typer.Argument(help="`allow`: only they may claim it; `deny`: they may not.")]


@app.command("load")
def load_list(
    name: CouponName,
    kind: Kind,
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(
            metavar="FILE",
            help="One user id a line; a name in .csv has a column `user_id`, one in .ndjson objects with it; - is the "
            "standard input.",
        ),
    ],
) -> None:
    """Replace a coupon's list. It is in force whole, or not at all, and claims go on meanwhile."""
    check_coupon_name(name)
    list_format = _FORMATS.get(Path(file.name).suffix.lower(), ListFormat.LINES)

    async def load() -> ListReplaced | UnknownCoupon:
        async with open_audience(load_database_settings()) as audience:
            return await eligibility.replace_list(audience, os_operator(), name, kind, _users(file, list_format))

    try:
        replaced = asyncio.run(load())
    except BadListError as error:
        raise ClaimsvcError("nothing was changed:\n" + "\n".join(error.lines)) from None
    _print(name, kind, replaced)


@app.command("remove")
def remove_list(name: CouponName, kind: Kind) -> None:
    """Take a coupon's list away. Whom the coupon's rules and its other list admit may claim it."""
    check_coupon_name(name)

    async def remove() -> ListReplaced | UnknownCoupon:
        async with open_audience(load_database_settings()) as audience:
            return await eligibility.remove_list(audience, os_operator(), name, kind)

    _print(name, kind, asyncio.run(remove()))


async def _users(file: BinaryIO, list_format: ListFormat) -> AsyncIterator[Sequence[str]]:
    reader = ListReader(list_format)
    while piece := file.read(_PIECE_BYTES):
        yield reader.feed(piece)
    yield reader.end()


def _print(name: str, kind: ListKind, replaced: ListReplaced | UnknownCoupon) -> None:
    if isinstance(replaced, UnknownCoupon):
        raise ClaimsvcError(f"there is no coupon {name}; nothing was changed")
    told = "no list" if replaced.users is None else f"a list of {replaced.users} users"
    Console().print(f"{name} has {told} to {kind}.", highlight=False, soft_wrap=True)
