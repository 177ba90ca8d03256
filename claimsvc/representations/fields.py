"""The types of fields, and what all requests have in common."""

from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from claimsvc import domain

MAX_ENTRIES = 20


def at_most(count: int) -> BeforeValidator:
    """Refuses an object or array of more entries before any of them is validated.

    pydantic validates every entry and describes every error, of which a refusal shows the first few. List it last, so
    that it runs first.

    Args:
        count: how many entries there may be.
    """

    def check(value: Any) -> Any:
        if isinstance(value, dict | list) and len(value) > count:
            raise ValueError(f"More than {count} entries")
        return value

    return BeforeValidator(check)


def _in_slices(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, dict):
        return validate(value)
    entries, result = iter(value.items()), validate({})
    while part := dict(islice(entries, MAX_ENTRIES)):
        result.update(validate(part))
    return result


IN_SLICES = WrapValidator(_in_slices)
"""Validates an object of any size some entries at a time, and stops at the first of them that are wrong."""

CouponName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.COUPON_NAME_PATTERN,
        description=domain.COUPON_NAME_RULE,
        examples=["demo"],
    ),
]
UserId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.USER_ID_PATTERN,
        description=domain.USER_ID_RULE,
        examples=["user-1"],
    ),
]
Amount = Annotated[
    int, Field(ge=1, le=domain.MAX_AMOUNT, description="an integer from 1 to 2147483647", examples=[100])
]

Paused = Annotated[bool, Field(description="true or false")]


Strategy = Annotated[
    domain.StrategyName,
    Field(
        # Strict models accept no strings for enumerations, but JSON has no other type.
        strict=False,
        description="the way in which claims are ordered: `redlock` (a distributed lock), `row_lock` (PostgreSQL "
        "alone) or `counter` (a counter in Redis refuses claims beyond the stock early)",
        examples=["redlock"],
    ),
]


CouponType = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_NAME_LENGTH,
        pattern=domain.COUPON_TYPE_PATTERN,
        description=f"a name that groups coupons: {domain.COUPON_TYPE_RULE}",
        examples=["welcome"],
    ),
]
TYPE_OR_NONE = "the type of the coupons; empty for coupons without a type"
TypeOrNone = Annotated[
    str,
    Field(
        max_length=domain.MAX_NAME_LENGTH,
        pattern=rf"^$|{domain.COUPON_TYPE_PATTERN}",
        description=TYPE_OR_NONE,
        examples=["welcome"],
    ),
]
HoldSeconds = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_HOLD_SECONDS,
        description="a number of seconds from 1 to 86400; the unit is held for so long, and released unless confirmed",
        examples=[300],
    ),
]


def _visibly(text: str) -> str:
    if not domain.is_visible_line(text):
        raise ValueError("not a visible line")
    return text


VisibleLine = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_REASON_LENGTH,
        pattern=domain.REASON_PATTERN,
        description=domain.REASON_RULE,
        examples=["bought something else"],
    ),
    AfterValidator(_visibly),
]
"""A text that is shown to people: with one that shows nothing, or reorders what stands beside it, it would deceive."""

Reason = VisibleLine
ReasonOrNone = Annotated[
    str,
    Field(
        max_length=domain.MAX_REASON_LENGTH,
        pattern=rf"^$|{domain.REASON_PATTERN}",
        description=f"{domain.REASON_RULE}; empty for no reason",
        examples=["bought something else"],
    ),
    AfterValidator(lambda text: _visibly(text) if text else text),
]


# Beyond it, programs read different numbers from the same digits (RFC 7493), and jsonb returns 1e300 as an integer.
MAX_NUMBER = 2**53 - 1
NUMBER_RULE = "a number from -9007199254740991 to 9007199254740991"
Number = Annotated[
    Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)] | Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)],
    Field(description=NUMBER_RULE),
]
# PostgreSQL stores U+0000 neither in text nor in jsonb.
Scalar = Annotated[
    Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | bool | Number,
    Field(description=f"a string of at most 255 characters, {NUMBER_RULE}, true or false", examples=["KR"]),
]
AttributeName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$", description="1 to 64 characters of A-Z a-z 0-9 . _ -", examples=["country"]
    ),
]
Attributes = Annotated[
    dict[AttributeName, Scalar],
    Field(
        max_length=20,
        description="an object with at most 20 attributes of the user: strings, numbers, true or false",
        examples=[{"country": "KR"}],
        json_schema_extra={"additionalProperties": False},
    ),
    at_most(MAX_ENTRIES),
]


class Request(BaseModel):
    """The base of all request models: strict types, no unknown fields, no input in error messages.

    Each field has a description, which completes "it must be" in messages; see `claimsvc.representations.mistakes`.
    `EXAMPLE` is a valid body. One made of the examples of all fields may be invalid, because some exclude each other.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {}

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def bytes_of_jsonb(value: object) -> int:
    """Estimate the size of a JSON value in PostgreSQL, in bytes. There, 1e-300 has 300 digits."""
    if isinstance(value, Mapping):
        return sum(bytes_of_jsonb(name) + bytes_of_jsonb(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return sum(map(bytes_of_jsonb, value))
    return len(f"{Decimal(repr(value)):f}" if isinstance(value, float) else orjson.dumps(value)) + 2
