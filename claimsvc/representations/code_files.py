"""Files of codes, read row by row as they arrive: CSV, or one JSON object per line."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from claimsvc.domain import COUPON_TYPE_RULE, MAX_CODE_TYPES, MAX_ROWS, RFC_3339_RULE, NewCode, RefusedRow, RowReason
from claimsvc.domain.codes import new_code, with_type
from claimsvc.representations.benefits import BENEFIT_COLUMNS, BENEFIT_RULE, benefit_of, benefit_of_cells
from claimsvc.representations.headings import CODE, EXPIRES_AT, TYPE, names, resembles_one_of_codes
from claimsvc.representations.lines import Lines
from claimsvc.representations.strict_json import InvalidJsonError, decode_object

_MAX_ROW_BYTES = 4096
# Those of a file without a heading.
_COLUMNS = [CODE, EXPIRES_AT]
_BENEFIT = "benefit"
_MEMBERS = {CODE, EXPIRES_AT, TYPE, _BENEFIT}
_EVERY_COLUMN = [*_COLUMNS, TYPE, *BENEFIT_COLUMNS]
_OTHER_COLUMNS = ", ".join(f"`{column}`" for column in _EVERY_COLUMN[1:])
CSV, NDJSON = "text/csv", "application/x-ndjson"

Row = NewCode | RefusedRow

ROW_RULES: Mapping[RowReason, str] = {
    RowReason.BAD_ROW: "a row must be `code` or `code,expires_at`, or what the heading says, or a JSON object with "
    "`code`, `expires_at`, `type` and `benefit`",
    RowReason.BAD_CODE: "a code must be 1 to 64 characters of A-Z a-z 0-9 . _ - and Hangul syllables, not only dots, "
    "such as HKTA-2947",
    RowReason.BAD_EXPIRY: f"`expires_at` must be {RFC_3339_RULE}",
    RowReason.BAD_TYPE: f"a type must be {COUPON_TYPE_RULE}",
    RowReason.BAD_BENEFIT: f"a benefit must be {BENEFIT_RULE}; in CSV, these are columns: `percent_off` such as 15, "
    "`amount_off` such as 5000 with `currency` such as KRW, or `text` on one line",
    RowReason.EXPIRED: "`expires_at` is in the past",
    RowReason.COUPON_HAS_TYPE: "the coupon has a type, so its codes have none of their own",
    RowReason.COUPON_HAS_BENEFIT: "the coupon has a benefit, so its codes have none of their own",
    RowReason.TOO_MANY_TYPES: f"the codes of a coupon have at most {MAX_CODE_TYPES} types",
}
"""What a row breaks, in words, for people; the other reasons say it themselves."""


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
    if not document.keys() <= _MEMBERS:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    row = with_type(new_code(number, document.get(CODE), document.get(EXPIRES_AT)), document.get(TYPE))
    return row if (benefit := document.get(_BENEFIT)) is None else _with_benefit(row, benefit_of, benefit)


def _row_of_cells(number: int, cells: Mapping[str, str]) -> Row:
    row = with_type(new_code(number, cells.get(CODE), cells.get(EXPIRES_AT)), cells.get(TYPE))
    of_benefit = {column: cell for column in BENEFIT_COLUMNS if (cell := cells.get(column))}
    return _with_benefit(row, benefit_of_cells, of_benefit) if of_benefit else row


def _with_benefit(row: Row, parse: Callable[[Any], Mapping[str, Any]], benefit: object) -> Row:
    if isinstance(row, RefusedRow):
        return row
    try:
        return replace(row, benefit=parse(benefit))
    except ValueError:
        return RefusedRow(row.row, row.code, RowReason.BAD_BENEFIT)


def _columns_of_heading(number: int, cells: Sequence[str]) -> list[str] | None:
    """The columns that a file's first line names, in their order; empty where a cell is. None if it is not a heading.

    Raises:
        BadCodeFileError: it looks like a heading, but is not one of codes.
    """
    if not any(resembles_one_of_codes(cell, _EVERY_COLUMN) for cell in cells):
        return None
    columns = [next((column for column in _EVERY_COLUMN if names(cell, column)), "") for cell in cells]
    known = [column for column in columns if column]
    # A spreadsheet may end each line with a comma.
    if CODE in known and len(set(known)) == len([cell for cell in cells if cell]):
        return columns
    raise BadCodeFileError(
        f"Line {number} looks like a heading. A heading must be `code`, alone or with {_OTHER_COLUMNS}. "
        "If the line is a code, put a heading above it."
    )


class RowReader:
    """Reads rows from a file that arrives in pieces. Empty lines are skipped, but numbered.

    Args:
        media_type: `CSV` (`code` or `code,expires_at`; a heading is optional, and may name more columns) or `NDJSON`.
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
            # Below `code` alone a row may have an expiry, as without a heading.
            is_code_alone = columns[0] == "".join(columns)
            self._columns, self._heading = [*_COLUMNS, *columns[2:]] if is_code_alone else columns, cells
            return None
        # Files that were joined have their headings inside.
        if len(cells) > len(self._columns) or cells == self._heading:
            return RefusedRow(self._number, "", RowReason.BAD_ROW)
        given = dict(zip(self._columns, cells, strict=False))
        if any(cell for column, cell in zip(self._columns, cells, strict=False) if not column):
            return RefusedRow(self._number, "", RowReason.BAD_ROW)
        return _row_of_cells(self._number, given)
