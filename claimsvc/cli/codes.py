"""`claimsvc codes`: codes of coupons, directly in the database."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from claimsvc import domain
from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    Reason,
    check_coupon_name,
    check_reason,
    check_text,
    check_user_id,
    in_json,
    os_operator,
    print_json,
    refusal_error,
    say,
)
from claimsvc.cli.usage import must_be
from claimsvc.errors import ClaimsvcError

if TYPE_CHECKING:
    from claimsvc.postgres import Repositories
    from claimsvc.representations.code_files import Row, RowReader

_PIECE_BYTES = 65_536

app = typer.Typer(help="Add codes to coupons, look them up and redeem them, directly in the database.")

CodeText = Annotated[str, typer.Argument(help="The code, as the user has it.")]
Uses = Annotated[
    int | None,
    typer.Option(min=1, max=domain.MAX_USES, help="How often each may be redeemed; by default, as the coupon says."),
]


@app.command("upload")
def upload_codes(
    name: CouponName,
    file: Annotated[
        str,
        typer.Argument(
            help="CSV rows `code,expires_at`, with or without this heading; with one, also `type`, `percent_off`, "
            "`amount_off`, `currency`, `text`. In an .ndjson file, one JSON object per line. Use - for standard input."
        ),
    ],
    uses: Uses = None,
    partial: Annotated[bool, typer.Option("--partial", help="Add the valid rows even if others are refused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add the codes of a file to a coupon: all of them, or none. Exit status 1: a row was refused."""
    from claimsvc.application import codes as code_cases

    # Imported here, because help must not wait for orjson and pydantic.
    from claimsvc.representations.code_files import CSV, NDJSON, ROW_RULES, RowReader
    from claimsvc.representations.codes import CodesAddedBody, refused_bodies

    check_coupon_name(name)
    check_text(file, "FILE")

    async def upload(storage: "Repositories") -> domain.CodesAdded | domain.RowsRefused:
        with _opened(file) as opened:
            rows = _rows(opened, RowReader(NDJSON if file.endswith(".ndjson") else CSV))
            added = await code_cases.add(storage.codes, os_operator(), name, rows, atomic=not partial, uses=uses)
        if isinstance(added, domain.CodesAdded | domain.RowsRefused):
            return added
        raise refusal_error(added, f"there is no coupon {name}")

    done = on_storage(upload)
    added = done.added if isinstance(done, domain.CodesAdded) else 0
    if as_json:
        print_json(CodesAddedBody(added, done.refused_count, refused_bodies(done)))
    else:
        for refused in done.refused:
            rule = f" ({ROW_RULES[refused.reason]})" if refused.reason in ROW_RULES else ""
            say(f"Row {refused.row}: {refused.reason} {refused.code}".rstrip() + rule)
        if done.refused_count > len(done.refused):
            say(f"There are {done.refused_count - len(done.refused)} more.")
        say(f"{added} codes were added to {name}.")
    if done.refused_count:
        raise typer.Exit(1)


@app.command("generate")
def generate_codes(
    name: CouponName,
    count: Annotated[int, typer.Option(min=1, max=domain.MAX_GENERATED, help="The number of codes.")],
    pattern: Annotated[
        str,
        typer.Option(help="A becomes a letter, 9 a digit, 가 a Hangul syllable; other characters of A-Z 0-9 _ - stay."),
    ] = "AAAA-9999",
    expires_at: Annotated[
        str | None,
        typer.Option(help=f"When they expire, {domain.RFC_3339_RULE}; without it, they never do."),
    ] = None,
    uses: Uses = None,
) -> None:
    """Generate random codes and add them to a coupon."""
    from claimsvc.application import codes as code_cases

    check_coupon_name(name)
    if not re.fullmatch(domain.GENERATION_PATTERN, pattern):
        raise must_be(domain.GENERATION_RULE, "--pattern", "AAAA-9999")
    ends = _parsed(expires_at)
    made = on_storage(
        lambda storage: code_cases.generate(storage.codes, os_operator(), name, count, pattern, ends, uses=uses)
    )
    match made:
        case domain.CodesAdded():
            say(f"{made.added} codes were added to {name}.")
        case domain.PatternTooSmall():
            raise refusal_error(
                made,
                f"{count} more codes of the pattern {pattern} would be easy to guess or are not left; use a longer one",
            )
        case domain.CodeExpired():
            raise refusal_error(made, "--expires-at is in the past: the codes could not be redeemed")
        case domain.UnknownCoupon():
            raise refusal_error(made, f"there is no coupon {name}")
        case _:
            raise refusal_error(made)


@app.command("show")
def show_code(code: CodeText, as_json: AsJson = False) -> None:
    """Show a code: its coupon, its claim and user, and whether it was redeemed."""
    from claimsvc.application import codes as code_cases

    check_text(code, "CODE")
    found = on_storage(lambda storage: code_cases.get(storage.codes, os_operator(), code))
    if isinstance(found, domain.UnknownCode):
        raise refusal_error(found, f"there is no code {code}")
    if as_json:
        # Imported here, because help must not wait for pydantic.
        from claimsvc.representations.codes import code_body

        print_json(code_body(found, os_operator()))
    else:
        _print(found)


@app.command("redeem")
def redeem_code(
    code: CodeText,
    user_id: Annotated[
        str | None, typer.Option("--user", help="Redeem it only if this user's claim has the code.")
    ] = None,
) -> None:
    """Redeem a code. Each code can be redeemed once, unless it has more uses."""
    from claimsvc.application import codes as code_cases

    check_text(code, "CODE")
    if user_id is not None:
        check_user_id(user_id)
    done = on_storage(lambda storage: code_cases.redeem(storage.codes, os_operator(), code, user_id=user_id))
    match done:
        case domain.Redeemed(redeemed):
            _print(redeemed)
        case domain.AlreadyRedeemed():
            raise refusal_error(done, f"{code} was redeemed before, as often as it may be")
        case domain.CodeExpired():
            raise refusal_error(done, f"{code} has expired")
        case domain.NotYourClaim():
            raise refusal_error(done, f"{code} belongs to a claim of another user than {user_id}")
        case domain.CodeNotClaimed():
            raise refusal_error(done, f"{code} does not belong to a claim")
        case domain.UnknownCode():
            raise refusal_error(done, f"there is no code {code}")
        case _:
            raise refusal_error(done)


@app.command("unredeem")
def unredeem_code(code: CodeText, reason: Reason) -> None:
    """Take back the last redemption of a code, because it fell through. Audited."""
    from claimsvc.application import codes as code_cases

    check_text(code, "CODE")
    check_reason(reason)
    done = on_storage(lambda storage: code_cases.unredeem(storage.codes, os_operator(), code, reason))
    match done:
        case domain.CodeUnredeemed(unredeemed):
            _print(unredeemed)
        case domain.NotRedeemed():
            raise refusal_error(done, f"{code} is not redeemed")
        case domain.UnknownCode():
            raise refusal_error(done, f"there is no code {code}")
        case _:
            raise refusal_error(done)


def _parsed(expires_at: str | None) -> datetime | None:
    try:
        return None if expires_at is None else domain.parse_time(expires_at)
    except ValueError:
        raise must_be(domain.RFC_3339_RULE, "--expires-at") from None


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ClaimsvcError(f"{file} cannot be read: {error.strerror}") from error


async def _rows(opened: BinaryIO, reader: "RowReader") -> AsyncIterator[list["Row"]]:
    from claimsvc.representations.code_files import BadCodeFileError  # imported by now, and not for help

    try:
        while piece := opened.read(_PIECE_BYTES):
            yield reader.feed(piece)
        yield reader.finish()
    except BadCodeFileError as error:
        raise ClaimsvcError(str(error)) from error


def _print(code: domain.Code) -> None:
    say(f"{code.code} of {code.coupon_name}: {code.state}")
    for name in ("type", "benefit", "claim_id", "user_id", "expires_at", "redeemed_at"):
        if (value := getattr(code, name)) is not None:
            say(f"  {name}: {in_json(value)}")
    if code.uses > 1:
        say(f"  redeemed: {code.redeemed_count} of {code.uses} times")
