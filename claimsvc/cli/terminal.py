"""What several commands accept and print."""

import json
import os
import pwd
import re
import socket
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from claimsvc import domain
from claimsvc.cli.usage import must_be
from claimsvc.domain.outcomes import problem_of
from claimsvc.errors import ClaimsvcError

_NO_TERMINAL_COLUMNS = 100_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
CouponName = Annotated[
    str,
    typer.Argument(help=f"The coupon's name: {domain.COUPON_NAME_RULE}."),
]
Reason = Annotated[str, typer.Option(help="Why; recorded in the audit.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def check_coupon_name(name: str) -> None:
    """Raise `typer.BadParameter` unless this is a valid name of a coupon."""
    if len(name) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.COUPON_NAME_PATTERN, name):
        raise must_be(domain.COUPON_NAME_RULE, "NAME", "summer-sale")


def check_user_id(user_id: str, option: str = "--user") -> None:
    """Raise `typer.BadParameter` unless this is a valid id of a user."""
    if len(user_id) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.USER_ID_PATTERN, user_id):
        raise must_be(domain.USER_ID_RULE, option, "user-1")


def check_coupon_type(coupon_type: str, option: str = "--type") -> None:
    """Raise `typer.BadParameter` unless this is a valid type of coupons."""
    if len(coupon_type) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.COUPON_TYPE_PATTERN, coupon_type):
        raise must_be(domain.COUPON_TYPE_RULE, option, "welcome")


def check_search(text: str, option: str = "--search") -> None:
    """Raise `typer.BadParameter` unless a name of a coupon can contain this text."""
    if len(text) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.COUPON_SEARCH_PATTERN, text):
        raise must_be(domain.COUPON_SEARCH_RULE, option, "sale")


def check_reason(reason: str) -> None:
    """Raise `typer.BadParameter` unless this is a reason that the API takes."""
    if len(reason) > domain.MAX_REASON_LENGTH or not domain.is_visible_line(reason):
        raise typer.BadParameter(f"must be {domain.REASON_RULE}", param_hint="--reason")


def check_text(text: str, option: str) -> None:
    """Raise `typer.BadParameter` if an argument was not UTF-8, which Python represents as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise must_be("text in UTF-8", option) from None


def confirm(question: str, yes: bool) -> None:
    """Ask for confirmation on the terminal, unless `yes`.

    Raises:
        typer.Abort: the answer was no.
        typer.BadParameter: standard input is not a terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("not a terminal: pass --yes to confirm", param_hint="--yes")
    typer.confirm(question, abort=True)


def refusal_error(outcome: domain.Outcome, message: str = "") -> ClaimsvcError:
    """The error of a command whose use case refused.

    Args:
        outcome: the refusal; its row in the table of outcomes has the exit status.
        message: what is printed, in place of the meaning of its problem.
    """
    problem = problem_of(outcome)
    return ClaimsvcError(message or problem.meaning, exit_status=problem.exit_status)


def os_operator() -> domain.Caller:
    """The operating system's user who runs this command, with every permission."""
    return domain.operator(os_actor())


def os_actor() -> str:
    """The actor's name in the audit, from the user id: variables such as USER can be set to anything."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"os-user:{name}@{socket.gethostname()}"


def say(text: str) -> None:
    """Print text as it is: without markup, and without breaking its lines."""
    Console(highlight=False, soft_wrap=True, markup=False).print(text)


def print_table(table: Table) -> None:
    """Print a table, fitted to the terminal; elsewhere as wide as it needs, so that names are never broken."""
    Console(highlight=False, width=None if sys.stdout.isatty() else _NO_TERMINAL_COLUMNS).print(table)


def print_json(value: object) -> None:
    """Print JSON for programs, in the form that HTTP answers have."""
    # In ASCII, because the terminal may not take anything else.
    typer.echo(json.dumps(_plain(value), indent=2))


def in_json(value: object) -> str:
    """A value for people, in the form that HTTP answers have; a text without its quotation marks."""
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: object) -> Any:
    """A value of JSON's types: of times, dataclasses and enumerations the form that HTTP answers have."""
    import orjson  # imported here, because help must not wait for it

    return orjson.loads(orjson.dumps(value, option=orjson.OPT_UTC_Z))
