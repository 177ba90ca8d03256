"""Date-times in requests: RFC 3339, with an offset."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field

from claimsvc.domain.times import RFC_3339_RULE, parse_time


def _parsed(value: object) -> datetime:
    # pydantic alone would also accept a string of digits, as seconds since 1970.
    if not isinstance(value, str):
        raise ValueError("Not a valid date-time")
    return parse_time(value)


StartsAt = Annotated[
    AwareDatetime,
    BeforeValidator(_parsed),
    Field(description=RFC_3339_RULE, examples=["2026-11-27T09:00:00+09:00"]),
]


EndsAt = Annotated[
    AwareDatetime,
    BeforeValidator(_parsed),
    Field(description=RFC_3339_RULE, examples=["2026-11-28T09:00:00+09:00"]),
]
