"""Date-times in requests: RFC 3339, with an offset."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written_out(value: object) -> object:
    # pydantic alone would also accept a string of digits, as seconds since 1970.
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("Not a valid date-time")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("Out of range") from None


_TIME = "an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z"


# Strict models accept no strings for times, but JSON has no other type. `_written_out` refuses what is not a string.
StartsAt = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out),
    AfterValidator(_in_utc),
    Field(strict=False, description=_TIME, examples=["2026-11-27T09:00:00+09:00"]),
]


EndsAt = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out),
    AfterValidator(_in_utc),
    Field(strict=False, description=_TIME, examples=["2026-11-28T09:00:00+09:00"]),
]
