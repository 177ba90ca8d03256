"""Files of codes, read row by row as they come: CSV, or JSON documents one a line."""

import asyncio
import csv
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from aiohttp import hdrs, web

from claimsvc.api.bodies import decode_object
from claimsvc.api.problems import BAD_REQUEST, BODY_TOO_LARGE, REQUEST_TIMEOUT, UNSUPPORTED_MEDIA_TYPE, RefusedError
from claimsvc.domain import MAX_ROWS, NewCode, RefusedRow, RowReason
from claimsvc.domain.codes import new_code

MAX_UPLOAD_BYTES = 32 * 1024 * 1024
# Of a file that comes without pauses, but slowly.
_LONGEST_UPLOAD_SECONDS = 120.0
_LONGEST_ROW_BYTES = 4096
_UTF_8 = frozenset({"utf-8", "utf8"})

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


def reader_of(request: web.Request) -> RowReader:
    """What reads the request's body.

    Raises:
        RefusedError: it is of another media type.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "Files of codes are not taken compressed.", close=True)
    charset = request.charset
    if request.content_type not in _READERS or (charset is not None and charset.lower() not in _UTF_8):
        raise RefusedError(UNSUPPORTED_MEDIA_TYPE, f"Send {' or '.join(_READERS)} in UTF-8.", close=True)
    return RowReader(request.content_type)


async def uploaded_rows(request: web.Request, reader: RowReader, *, timeout_seconds: float) -> AsyncIterator[list[Row]]:
    """The rows of the request's body as they come.

    Args:
        timeout_seconds: longest pause in it.

    Raises:
        RefusedError: it is too large, too slow, or breaks off; what was yielded before is all there is.
    """
    if (request.content_length or 0) > MAX_UPLOAD_BYTES:
        raise _too_large()
    size = 0
    ends_at = time.monotonic() + _LONGEST_UPLOAD_SECONDS
    while True:
        try:
            async with asyncio.timeout(min(timeout_seconds, ends_at - time.monotonic())):
                piece = await request.content.readany()
        except TimeoutError:
            raise RefusedError(REQUEST_TIMEOUT, close=True) from None
        except (web.RequestPayloadError, ConnectionError):
            raise RefusedError(
                BAD_REQUEST, "The body is not as its headers say, or it broke off.", close=True
            ) from None
        if not piece:
            yield reader.finish()
            return
        size += len(piece)
        if size > MAX_UPLOAD_BYTES:
            raise _too_large()
        yield reader.feed(piece)


def _too_large() -> RefusedError:
    return RefusedError(BODY_TOO_LARGE, f"A file of codes is larger than {MAX_UPLOAD_BYTES} bytes.", close=True)
