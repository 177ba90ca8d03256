"""Files of codes, read row by row as they arrive: CSV, or one JSON object per line."""

import csv
from collections.abc import Sequence

from claimsvc.domain import MAX_ROWS, NewCode, RefusedRow, RowReason
from claimsvc.domain.codes import new_code
from claimsvc.representations.headings import CODE, EXPIRES_AT, names, resembles
from claimsvc.representations.lines import Lines
from claimsvc.representations.strict_json import InvalidJsonError, decode_object

_MAX_ROW_BYTES = 4096
_COLUMNS = [CODE, EXPIRES_AT]
CSV, NDJSON = "text/csv", "application/x-ndjson"

Row = NewCode | RefusedRow


class BadCodeFileError(Exception):
    """The file cannot be read on; the message is a sentence that says why."""


class TooManyRowsError(BadCodeFileError):
    """The file has more rows than one may have."""


def _cells(line: str) -> list[str] | None:
    """The cells of a line of CSV; None if it is not CSV."""
    cells = line.split(",")
    if '"' in line:
        try:
            [cells] = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            return None
    return [cell.strip() for cell in cells]


def _json_row(number: int, line: str) -> Row:
    try:
        document = decode_object(line.encode())
    except InvalidJsonError:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    if not document.keys() <= {CODE, EXPIRES_AT}:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    return new_code(number, document.get(CODE), document.get(EXPIRES_AT))


def _columns_of_heading(number: int, cells: Sequence[str]) -> list[str] | None:
    """The columns that a file's first line names, in their order; None if the line is not a heading.

    Raises:
        BadCodeFileError: it looks like a heading, but is not one of codes.
    """
    if not any(resembles(cell, column) for cell in cells for column in _COLUMNS):
        return None
    columns = [column for cell in cells for column in _COLUMNS if names(cell, column)]
    # A spreadsheet may end each line with a comma.
    if CODE in columns and len(set(columns)) == len([cell for cell in cells if cell]):
        return columns
    raise BadCodeFileError(
        f"Line {number} looks like a heading. A heading must be `code` or `code,expires_at`. If the line is a code, "
        "put a heading above it."
    )


class RowReader:
    """Reads rows from a file that arrives in pieces. Empty lines are skipped, but numbered.

    Args:
        media_type: `CSV` (`code` or `code,expires_at`; a heading is optional) or `NDJSON`.
    """

    def __init__(self, media_type: str) -> None:
        self._media_type = media_type
        self._number = 0
        self._rows = 0
        self._lines = Lines()
        # What CSV's columns are. The heading, if there is one, is the first line that is not empty.
        self._columns = _COLUMNS
        self._heading: list[str] | None = None
        self._has_begun = False

    def feed(self, piece: bytes) -> list[Row]:
        """Read the rows that end in a piece.

        Raises:
            BadCodeFileError: the heading is wrong, a row is too long, or there are too many (`TooManyRowsError`).
        """
        lines = self._lines.feed(piece)
        if self._lines.rest_bytes > _MAX_ROW_BYTES or any(len(line) > _MAX_ROW_BYTES for line in lines):
            raise BadCodeFileError(f"A row is longer than {_MAX_ROW_BYTES} bytes.")
        return [row for line in lines if (row := self._row(line)) is not None]

    def finish(self) -> list[Row]:
        """Read the last row, if it has no line break. Raises as `feed`."""
        return self.feed(b"\n") if self._lines.rest_bytes else []

    def _row(self, line: bytes) -> Row | None:
        self._number += 1
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            self._has_begun = True
            row: Row | None = RefusedRow(self._number, "", RowReason.BAD_ROW)
        else:
            if not text:
                return None
            row = self._csv_row(text) if self._media_type == CSV else _json_row(self._number, text)
        if row is not None:
            self._rows += 1
            if self._rows > MAX_ROWS:
                raise TooManyRowsError(f"The file has more than {MAX_ROWS} rows; split it.")
        return row

    def _csv_row(self, line: str) -> Row | None:
        cells = _cells(line)
        is_first, self._has_begun = not self._has_begun, True
        if cells is None:
            return RefusedRow(self._number, "", RowReason.BAD_ROW)
        if is_first and (columns := _columns_of_heading(self._number, cells)) is not None:
            self._columns, self._heading = columns if len(columns) > 1 else _COLUMNS, cells
            return None
        # Files that were joined have their headings inside.
        if len(cells) > 2 or cells == self._heading:
            return RefusedRow(self._number, "", RowReason.BAD_ROW)
        given = dict(zip(self._columns, cells, strict=False))
        return new_code(self._number, given.get(CODE), given.get(EXPIRES_AT))
