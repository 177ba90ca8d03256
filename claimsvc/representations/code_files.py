"""Files of codes, read row by row as they arrive: CSV, or one JSON object per line."""

import csv
from collections.abc import Callable, Mapping
from types import MappingProxyType

from claimsvc.domain import MAX_ROWS, NewCode, RefusedRow, RowReason
from claimsvc.domain.codes import new_code
from claimsvc.representations.strict_json import InvalidJsonError, decode_object

_MAX_ROW_BYTES = 4096

Row = NewCode | RefusedRow


class BadCodeFileError(Exception):
    """The file cannot be read on; the message is a sentence that says why."""


class TooManyRowsError(BadCodeFileError):
    """The file has more rows than one may have."""


def _csv_row(number: int, line: str) -> Row | None:
    cells = line.split(",")
    if '"' in line:
        try:
            [cells] = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            return RefusedRow(number, "", RowReason.BAD_ROW)
    cells = [cell.strip() for cell in cells]
    if number == 1 and cells in (["code"], ["code", "expires_at"]):
        return None
    if len(cells) > 2:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    return new_code(number, cells[0], cells[1] if len(cells) == 2 else None)


def _json_row(number: int, line: str) -> Row | None:
    try:
        document = decode_object(line.encode())
    except InvalidJsonError:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    if not document.keys() <= {"code", "expires_at"}:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    return new_code(number, document.get("code"), document.get("expires_at"))


CSV, NDJSON = "text/csv", "application/x-ndjson"
_READERS: Mapping[str, Callable[[int, str], Row | None]] = MappingProxyType({CSV: _csv_row, NDJSON: _json_row})


class RowReader:
    """Reads rows from a file that arrives in pieces. Empty lines are skipped, but counted.

    Args:
        media_type: `CSV` (`code` or `code,expires_at`; the header line is optional) or `NDJSON`.
    """

    def __init__(self, media_type: str) -> None:
        self._read = _READERS[media_type]
        self._number = 0
        self._rest = b""

    def feed(self, piece: bytes) -> list[Row]:
        """Read the rows that end in a piece.

        Raises:
            BadCodeFileError: a row is too long, or there are too many (`TooManyRowsError`).
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _MAX_ROW_BYTES:
            raise BadCodeFileError(f"A row is longer than {_MAX_ROW_BYTES} bytes.")
        return [row for line in lines if (row := self._row(line)) is not None]

    def finish(self) -> list[Row]:
        """Read the last row, if it has no line break. Raises as `feed`."""
        return self.feed(b"\n") if self._rest else []

    def _row(self, line: bytes) -> Row | None:
        self._number += 1
        if self._number > MAX_ROWS:
            raise TooManyRowsError(f"The file has more than {MAX_ROWS} rows; split it.")
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            return RefusedRow(self._number, "", RowReason.BAD_ROW)
        return self._read(self._number, text) if text else None
