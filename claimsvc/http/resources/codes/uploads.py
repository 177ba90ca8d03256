"""Uploads of codes: the bodies that the route accepts, and reading their rows."""

from collections.abc import AsyncIterator

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.framework.streams import Streamed, StreamingBody
from claimsvc.http.server.problems import BODY_TOO_LARGE, RefusedError
from claimsvc.representations.code_files import CSV, NDJSON, BadCodeFileError, Row, RowReader, TooManyRowsError

MAX_UPLOAD_BYTES = 32 * 1024 * 1024

CODES = Streamed(
    {
        # Without a pattern: every text is accepted, and invalid rows are rejected one by one.
        CSV: {
            "schema": {
                "description": "each line is `code` or `code,expires_at`, or what a heading names: `code`, and any of "
                "`expires_at`, `type`, `percent_off`, `amount_off`, `currency`, `text`"
            },
            "example": "code,expires_at,percent_off\nHKTA-2947,2126-01-01T00:00:00Z,15\nMCWE-3358,,20\n",
        },
        NDJSON: {
            "schema": {
                "type": "string",
                "description": "each line is an object with `code` and, optionally, `expires_at`, `type` and `benefit`",
            }
        },
    },
    MAX_UPLOAD_BYTES,
)


async def rows_of(upload: StreamingBody) -> AsyncIterator[list[Row]]:
    """Read the rows of a body while it arrives.

    Raises:
        RefusedError: as `StreamingBody.pieces`, or because the file cannot be read on.
    """
    reader = RowReader(upload.content_type)
    try:
        async for piece in upload.pieces():
            yield reader.feed(piece)
        yield reader.finish()
    except BadCodeFileError as error:
        problem = BODY_TOO_LARGE if isinstance(error, TooManyRowsError) else BAD_REQUEST
        raise RefusedError(problem, str(error), close=True) from None
