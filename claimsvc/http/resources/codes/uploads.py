"""Files of codes, read row by row as they come: CSV, or JSON documents one a line."""

import csv
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from claimsvc.domain import MAX_ROWS, NewCode, RefusedRow, RowReason
from claimsvc.domain.codes import new_code
from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.framework.bodies import decode_object
from claimsvc.http.framework.streams import Streamed, StreamingBody
from claimsvc.http.server.problems import BODY_TOO_LARGE, RefusedError

MAX_UPLOAD_BYTES = 32 * 1024 * 1024
_LONGEST_ROW_BYTES = 4096

Row = NewCode | RefusedRow


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
    except RefusedError:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    if not document.keys() <= {"code", "expires_at"}:
        return RefusedRow(number, "", RowReason.BAD_ROW)
    return new_code(number, document.get("code"), document.get("expires_at"))


CSV, NDJSON = "text/csv", "application/x-ndjson"
CODES = Streamed(
    {
        # Any text is a file: rows that are none are told one by one.
        CSV: {
            "schema": {"description": "on each line a `code`, or a `code,expires_at`"},
            "example": "code,expires_at\nHKTA-2947,2126-01-01T00:00:00Z\nMCWE-3358\n",
        },
        NDJSON: {"schema": {"type": "string", "description": "on each line an object with `code` and `expires_at`"}},
    },
    MAX_UPLOAD_BYTES,
)
_READERS: Mapping[str, Callable[[int, str], Row | None]] = MappingProxyType({CSV: _csv_row, NDJSON: _json_row})


class RowReader:
    """Reads rows from a file that comes in pieces. Empty lines are passed over, but counted.

    Args:
        media_type: `CSV` (`code` or `code,expires_at`, with or without a first line that says so) or `NDJSON`.
    """

    def __init__(self, media_type: str) -> None:
        self._read = _READERS[media_type]
        self._number = 0
        self._rest = b""

    def feed(self, piece: bytes) -> list[Row]:
        """The rows that end in this piece.

        Raises:
            RefusedError: there are too many, or one is too long.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_ROW_BYTES:
            raise RefusedError(BAD_REQUEST, f"A row is longer than {_LONGEST_ROW_BYTES} bytes.", close=True)
        return [row for line in lines if (row := self._row(line)) is not None]

    def finish(self) -> list[Row]:
        """The last row, if no line break ends it. Raises as `feed`."""
        return self.feed(b"\n") if self._rest else []

    def _row(self, line: bytes) -> Row | None:
        self._number += 1
        if self._number > MAX_ROWS:
            raise RefusedError(BODY_TOO_LARGE, f"There are more than {MAX_ROWS} rows; send several files.", close=True)
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            return RefusedRow(self._number, "", RowReason.BAD_ROW)
        return self._read(self._number, text) if text else None


async def rows_of(upload: StreamingBody) -> AsyncIterator[list[Row]]:
    """The rows of a body as they come; raises as `Upload.pieces` and `RowReader.feed`."""
    reader = RowReader(upload.content_type)
    async for piece in upload.pieces():
        yield reader.feed(piece)
    yield reader.finish()
