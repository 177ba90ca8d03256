"""The types of fields, and what all requests have in common."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field

from claimsvc import domain

CouponName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.COUPON_NAME_PATTERN,
        description="1 to 255 of the characters A-Z a-z 0-9 . _ -, and not dots only",
        examples=["summer-sale"],
    ),
]
UserId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.USER_ID_PATTERN,
        description="1 to 255 visible ASCII characters, without blanks",
        examples=["user-1"],
    ),
]
Amount = Annotated[
    int, Field(ge=1, le=domain.MAX_AMOUNT, description="a whole number from 1 to 2147483647", examples=[100])
]


Strategy = Annotated[
    domain.StrategyName,
    Field(
        # Strict models take no strings for enumerations, but a string is all that JSON has.
        strict=False,
        description="how its claims are admitted: `redlock` (under the lock), `row_lock` (PostgreSQL alone) or "
        "`counter` (sorted by a counter in Redis first)",
        examples=["redlock"],
    ),
]


CouponType = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.COUPON_NAME_PATTERN,
        description="what groups coupons: 1 to 255 of the characters A-Z a-z 0-9 . _ -, and not dots only",
        examples=["welcome"],
    ),
]
HoldSeconds = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_HOLD_SECONDS,
        description="for how many seconds the unit is held until it is confirmed, from 1 to 86400",
        examples=[300],
    ),
]


# Beyond it programs read different numbers from the same digits (RFC 7493), and jsonb gives 1e300 back as a whole one.
MAX_NUMBER = 2**53 - 1
Number = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)] | Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
# PostgreSQL has no U+0000 in its texts, nor in its jsonb.
Scalar = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | bool | Number
Attributes = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], Scalar],
    Field(
        max_length=20,
        description="what is said of the user, by at most 20 names: texts, numbers, true or false",
        examples=[{"country": "KR"}],
        json_schema_extra={"additionalProperties": False},
    ),
]


class Request(BaseModel):
    """What every part of a request obeys: exact types, no field that is not known, no input in an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def bytes_of_jsonb(value: object) -> int:
    """About as many as PostgreSQL takes to write it: 1e-300 is three hundred digits there."""
    if isinstance(value, Mapping):
        return sum(bytes_of_jsonb(name) + bytes_of_jsonb(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return sum(map(bytes_of_jsonb, value))
    return len(f"{Decimal(repr(value)):f}" if isinstance(value, float) else orjson.dumps(value)) + 2
