"""`claimsvc lists`: who may claim a coupon and who may not, directly in the database."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import CouponName, check_coupon_name, os_operator, refusal_error, say
from claimsvc.domain import ListKind, ListReplaced, UnknownCoupon
from claimsvc.errors import ClaimsvcError

if TYPE_CHECKING:
    from claimsvc.representations.user_lists import ListReader

_PIECE_BYTES = 65_536

app = typer.Typer(
    help="Set the lists of users who may or may not claim a coupon, directly in the database.", no_args_is_help=True
)

Kind = Annotated[
    ListKind, typer.Argument(help="`allow`: only listed users may claim; `deny`: listed users may not claim.")
]


@app.command("load")
def load_list(
    name: CouponName,
    kind: Kind,
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(
            metavar="FILE",
            help="One user id per line; the first line may be the heading `user_id`. A .csv file has a column "
            "`user_id`, an .ndjson file one object with `user_id` per line. Use - for standard input.",
        ),
    ],
) -> None:
    """Replace a coupon's list. Claims see the old list or the new one, never a mixture of both."""
    from claimsvc.application import eligibility

    # Imported here, because help must not wait for pydantic.
    from claimsvc.representations.user_lists import BadListError, ListFormat, ListReader

    check_coupon_name(name)
    formats = {".csv": ListFormat.CSV, ".ndjson": ListFormat.NDJSON, ".jsonl": ListFormat.NDJSON}
    reader = ListReader(formats.get(Path(file.name).suffix.lower(), ListFormat.LINES))
    try:
        replaced = on_storage(
            lambda storage: eligibility.replace_list(storage.audience, os_operator(), name, kind, _users(file, reader))
        )
    except BadListError as error:
        raise ClaimsvcError("nothing was changed:\n" + "\n".join(error.lines)) from None
    _print(name, kind, replaced)


@app.command("remove")
def remove_list(name: CouponName, kind: Kind) -> None:
    """Remove a coupon's list. The coupon's rules and its other list still apply."""
    from claimsvc.application import eligibility

    check_coupon_name(name)
    removed = on_storage(lambda storage: eligibility.remove_list(storage.audience, os_operator(), name, kind))
    _print(name, kind, removed)


async def _users(file: BinaryIO, reader: "ListReader") -> AsyncIterator[Sequence[str]]:
    while piece := file.read(_PIECE_BYTES):
        yield reader.feed(piece)
    yield reader.end()


def _print(name: str, kind: ListKind, replaced: ListReplaced | UnknownCoupon) -> None:
    if isinstance(replaced, UnknownCoupon):
        raise refusal_error(replaced, f"there is no coupon {name}; nothing was changed")
    found = "no list" if replaced.users is None else f"a list of {replaced.users} users"
    say(f"{name} has {found} to {kind}.")
