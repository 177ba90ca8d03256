"""Lists of users: one per line, as plain text, CSV or NDJSON.

A user id contains no line break, so a line is also a row of CSV. CSV has a heading; plain text may have one.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

from pydantic import ValidationError

from claimsvc import domain
from claimsvc.representations.csv_cells import unguarded
from claimsvc.representations.fields import Request, UserId
from claimsvc.representations.headings import USER_ID, names, resembles_one_of_users
from claimsvc.representations.lines import Lines
from claimsvc.representations.strict_json import InvalidJsonError, decode_object

_MAX_LINE_BYTES = 4096
_MAX_ERRORS = 20
_IS_USER_ID = re.compile(rb"[!-~]{1,255}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEPARATOR = re.compile("[,;\t]")
_MUST_HAVE_HEADING = f"the first line of CSV must name the columns, including `{USER_ID}` once"
_RULE = "a user id is 1 to 255 visible ASCII characters, without spaces"


class ListFormat(StrEnum):
    """The format of a list, by its content type."""

    LINES = "text/plain"
    CSV = "text/csv"
    NDJSON = "application/x-ndjson"


class BadListError(Exception):
    """Lines are invalid; `lines` describes the first of them, each with its number."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class ListedUser(Request):
    """A user on a line of NDJSON."""

    user_id: UserId


class ListReader:
    """Reads a list from a file that arrives in pieces.

    Both methods raise `BadListError`; the reader cannot be used after that.
    """

    def __init__(self, list_format: ListFormat) -> None:
        self._format = list_format
        self._lines = Lines()
        self._number = 0
        self._users = 0
        self._has_begun = False
        # The cells of the heading, once it is read, and which of them is the column of the ids.
        self._heading: list[str] | None = None
        self._column = 0

    def feed(self, piece: bytes) -> list[str]:
        """The user ids on the lines that this piece completes."""
        lines = self._lines.feed(piece)
        if self._lines.rest_bytes > _MAX_LINE_BYTES:
            lines.append(self._lines.rest())
        return self._users_on(lines)

    def end(self) -> list[str]:
        """The user ids on the last line, if no line break ends it."""
        found = self._users_on([self._lines.rest()] if self._lines.rest_bytes else [])
        if not self._users:
            raise BadListError(["The list has no users. To remove a list, delete it."])
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
                if len(errors) == _MAX_ERRORS:
                    break
        self._users += len(found)
        if self._users > domain.MAX_LISTED_USERS:
            errors.append(f"Line {self._number}: a list can have at most {domain.MAX_LISTED_USERS} users.")
        if errors:
            raise BadListError(errors)
        return found

    def _users_in(self, line: bytes) -> Iterator[str]:
        if self._number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) > _MAX_LINE_BYTES:
            raise ValueError(f"the line is longer than {_MAX_LINE_BYTES} bytes")
        if not line:
            return
        is_first, self._has_begun = not self._has_begun, True
        if self._format is ListFormat.NDJSON:
            yield _of_json(line)
            return
        cells = _cells(line) if self._format is ListFormat.CSV else [line.decode("ascii", "replace")]
        if is_first and self._is_heading(cells):
            self._heading = cells
        # Files that were joined have their headings inside.
        elif cells == self._heading:
            raise ValueError("the line repeats the heading")
        elif self._format is ListFormat.LINES:
            yield _checked(line)
        elif self._heading is None:
            raise ValueError(_MUST_HAVE_HEADING)
        elif len(cells) <= self._column:
            raise ValueError(f"the row has no column `{USER_ID}`")
        else:
            yield _checked(unguarded(cells[self._column]).encode())

    def _is_heading(self, cells: list[str]) -> bool:
        """Whether the first line is a heading. CSV must have one.

        Raises:
            ValueError: it is not clear.
        """
        places = [place for place, cell in enumerate(cells) if names(cell, USER_ID)]
        if self._format is ListFormat.CSV:
            if len(places) != 1:
                raise ValueError(_MUST_HAVE_HEADING)
            self._column = places[0]
            return True
        if not places and any(resembles_one_of_users(cell) for cell in _SEPARATOR.split(cells[0])):
            raise ValueError(
                f"the line looks like a heading. A heading must be `{USER_ID}`; a list with several columns is CSV. If "
                "the line is a user, put a heading above it"
            )
        return bool(places)


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()], strict=True))
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    except csv.Error:
        raise ValueError("the line is not CSV") from None


def _checked(user_id: bytes) -> str:
    if not _IS_USER_ID.fullmatch(user_id):
        raise ValueError(_RULE)
    return user_id.decode("ascii")


def _of_json(line: bytes) -> str:
    try:
        document = decode_object(line)
        # Without the comparison, each further name would cost an error.
        if len(document) == 1:
            return ListedUser.model_validate(document).user_id
    except (InvalidJsonError, ValidationError):
        pass
    raise ValueError(f'the line must be an object with only `{USER_ID}`, such as {{"{USER_ID}": "user-1"}}; {_RULE}')
