"""`claimsvc codes`: codes of coupons, directly in the database."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from claimsvc import domain
from claimsvc.application import codes as code_cases
from claimsvc.cli.terminal import AsJson, CouponName, check_coupon_name, check_text, os_operator, print_json
from claimsvc.config import load_database_settings
from claimsvc.connect import open_codes
from claimsvc.errors import ClaimsvcError
from claimsvc.http.resources.codes.uploads import CSV, NDJSON, Row, RowReader
from claimsvc.http.server.problems import RefusedError

_PIECE_BYTES = 65_536

app = typer.Typer(help="Add codes to coupons, look them up and redeem them, directly in the database.")

CodeText = Annotated[str, typer.Argument(help="The code, as it was shown.")]


@app.command("upload")
def upload_codes(
    name: CouponName,
    file: Annotated[
        str, typer.Argument(help="CSV (code,expires_at), or - to read that; .ndjson: JSON documents, one a line.")
    ],
    partial: Annotated[bool, typer.Option("--partial", help="Add what can be added, though not all can.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add the codes of a file to a coupon: all of them, or none. Exit status: 1 if a row was refused."""
    check_coupon_name(name)
    check_text(file, "FILE")

    async def upload() -> domain.CodesAdded | domain.RowsRefused:
        async with open_codes(load_database_settings()) as codes:
            with _opened(file) as opened:
                rows = _rows(opened, RowReader(NDJSON if file.endswith(".ndjson") else CSV))
                added = await code_cases.add(codes, os_operator(), name, rows, atomic=not partial)
        if isinstance(added, domain.CodesAdded | domain.RowsRefused):
            return added
        raise ClaimsvcError(f"there is no coupon {name}")

    done = asyncio.run(upload())
    added = done.added if isinstance(done, domain.CodesAdded) else 0
    if as_json:
        rejected = [asdict(row) for row in done.refused]
        print_json({"added": added, "rejected_count": done.refused_count, "rejected": rejected})
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for refused in done.refused:
            console.print(f"Row {refused.row}: {refused.reason} {refused.code}".rstrip())
        if done.refused_count > len(done.refused):
            console.print(f"There are {done.refused_count - len(done.refused)} more.")
        console.print(f"{added} codes were added to {name}.")
    if done.refused_count:
        raise typer.Exit(1)


@app.command("generate")
def generate_codes(
    name: CouponName,
    count: Annotated[int, typer.Option(min=1, max=domain.MAX_GENERATED, help="How many.")],
    pattern: Annotated[
        str, typer.Option(help="A becomes a letter, 9 a digit, 가 a Hangul syllable; A-Z 0-9 _ - stay otherwise.")
    ] = "AAAA-9999",
    expires_at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Until when they can be redeemed.")
    ] = None,
) -> None:
    """Make codes at random, and add them to a coupon."""
    check_coupon_name(name)
    if not re.fullmatch(domain.GENERATION_PATTERN, pattern):
        raise typer.BadParameter("use up to 64 of A-Z 0-9 _ - and 가", param_hint="--pattern")

    async def generate() -> domain.CodesAdded | domain.PatternTooSmall | domain.CodeExpired:
        async with open_codes(load_database_settings()) as codes:
            made = await code_cases.generate(codes, os_operator(), name, count, pattern, expires_at)
        if isinstance(made, domain.CodesAdded | domain.PatternTooSmall | domain.CodeExpired):
            return made
        raise ClaimsvcError(f"there is no coupon {name}")

    made = asyncio.run(generate())
    if isinstance(made, domain.PatternTooSmall):
        raise ClaimsvcError(f"{pattern} makes too few codes for {count} of them to be hard to guess; use a longer one")
    if isinstance(made, domain.CodeExpired):
        raise ClaimsvcError("they could not be redeemed any more: --expires-at is past")
    Console(highlight=False, soft_wrap=True).print(f"{made.added} codes were added to {name}.")


@app.command("show")
def show_code(code: CodeText, as_json: AsJson = False) -> None:
    """Show a code: of which coupon it is, whose, and whether it was redeemed."""
    check_text(code, "CODE")

    async def look() -> domain.Code | domain.UnknownCode:
        async with open_codes(load_database_settings()) as codes:
            return await code_cases.get(codes, os_operator(), code)

    found = asyncio.run(look())
    if isinstance(found, domain.UnknownCode):
        raise ClaimsvcError(f"there is no code {code}")
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)


@app.command("redeem")
def redeem_code(code: CodeText) -> None:
    """Redeem a code, once."""
    check_text(code, "CODE")

    async def redeem() -> object:
        async with open_codes(load_database_settings()) as codes:
            return await code_cases.redeem(codes, os_operator(), code)

    done = asyncio.run(redeem())
    match done:
        case domain.Redeemed(redeemed):
            _print(redeemed)
        case domain.AlreadyRedeemed():
            raise ClaimsvcError(f"{code} was redeemed before")
        case domain.CodeExpired():
            raise ClaimsvcError(f"{code} has expired")
        case domain.CodeNotClaimed():
            raise ClaimsvcError(f"no claim has {code}")
        case _:
            raise ClaimsvcError(f"there is no code {code}")


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ClaimsvcError(f"{file} cannot be read: {error.strerror}") from error


async def _rows(opened: BinaryIO, reader: RowReader) -> AsyncIterator[list[Row]]:
    try:
        while piece := opened.read(_PIECE_BYTES):
            yield reader.feed(piece)
        yield reader.finish()
    except RefusedError as error:
        raise ClaimsvcError(error.detail or str(error)) from error


def _print(code: domain.Code) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{code.code} of {code.coupon_name}: {code.state}")
    for name in ("claim_id", "expires_at", "redeemed_at"):
        if (value := getattr(code, name)) is not None:
            console.print(f"  {name}: {value}")
