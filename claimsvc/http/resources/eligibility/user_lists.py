"""Lists of users as they are sent: one on each line, plain, as CSV or as NDJSON.

A user id has no line break in it, so a line is a row also of CSV.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

from claimsvc import domain
from claimsvc.http.framework.bodies import parse_body
from claimsvc.http.framework.schemas import Request, UserId
from claimsvc.http.server.problems import RefusedError

MAX_LIST_BYTES = 64 * 1024 * 1024
_LONGEST_LINE_BYTES = 4096
_MOST_ERRORS = 20
_USER_ID = re.compile(rb"[!-~]{1,255}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COLUMN = "user_id"
_RULE = "a user id is 1 to 255 visible ASCII characters, without blanks"


class ListFormat(StrEnum):
    """How a list is written, by its content type."""

    LINES = "text/plain"
    CSV = "text/csv"
    NDJSON = "application/x-ndjson"


class BadListError(Exception):
    """Lines that are wrong: the first of them, each with its number, and why."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class ListedUser(Request):
    """A line of NDJSON."""

    user_id: UserId


class ListReader:
    """Reads a list from pieces of a file, whose ends are anywhere.

    Both methods raise `BadListError`, and the reader is of no use after that.
    """

    def __init__(self, list_format: ListFormat) -> None:
        self._format = list_format
        self._rest = b""
        self._number = 0
        self._users = 0
        # Where the ids are, once the first line of CSV has told.
        self._column: int | None = None

    def feed(self, piece: bytes) -> list[str]:
        """The user ids on the lines that are complete with this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES:
            lines.append(self._rest)
        return self._users_on(lines)

    def end(self) -> list[str]:
        """The user ids on what is left."""
        found = self._users_on([self._rest] if self._rest else [])
        if not self._users:
            raise BadListError(["It has no user; to take a list away, delete it."])
        return found

    def _users_on(self, lines: Iterable[bytes]) -> list[str]:
        errors: list[str] = []
        found: list[str] = []
        for line in lines:
            self._number += 1
            try:
                found += self._users_in(line.removesuffix(b"\r"))
            except ValueError as error:
                errors.append(f"Line {self._number}: {error}.")
                if len(errors) == _MOST_ERRORS:
                    break
        self._users += len(found)
        if self._users > domain.MAX_LISTED_USERS:
            errors.append(f"Line {self._number}: a list has at most {domain.MAX_LISTED_USERS} users.")
        if errors:
            raise BadListError(errors)
        return found

    def _users_in(self, line: bytes) -> Iterator[str]:
        if self._number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) > _LONGEST_LINE_BYTES:
            raise ValueError(f"it is longer than {_LONGEST_LINE_BYTES} bytes")
        if not line:
            return
        if self._format is ListFormat.NDJSON:
            yield _of_json(line)
        elif self._format is ListFormat.LINES:
            yield _checked(line)
        elif self._column is None:
            columns = _columns(line)
            if _COLUMN not in columns:
                raise ValueError(f"the first line of CSV names the columns, one of which is `{_COLUMN}`")
            self._column = columns.index(_COLUMN)
        else:
            columns = _columns(line)
            if len(columns) <= self._column:
                raise ValueError("it has too few columns")
            yield _checked(columns[self._column].encode())


def _columns(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()], strict=True))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except csv.Error:
        raise ValueError("it is not CSV") from None


def _checked(user_id: bytes) -> str:
    if not _USER_ID.fullmatch(user_id):
        raise ValueError(_RULE)
    return user_id.decode("ascii")


def _of_json(line: bytes) -> str:
    try:
        return parse_body(ListedUser, line).user_id
    except RefusedError:
        raise ValueError(f"it is not an object with a `{_COLUMN}` alone; {_RULE}") from None
