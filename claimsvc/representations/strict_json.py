"""JSON objects of which every parser has the same understanding.

Input that parsers interpret differently (duplicate keys, NaN, numbers beyond the range of a float) is an error here.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Never

import orjson

# More than any valid number has. int() takes quadratic time, and fails beyond 4300 digits.
_MAX_DIGITS = 32
_MAX_SHOWN = 64
# What is nested more deeply is not usual.
_FAST_LEVELS = 4
BODY = "The body"
_EXAMPLE = 'a JSON object, such as {"user_id": "user-1"}'


class InvalidJsonError(Exception):
    """The text is not a JSON object, or not one that is allowed; `detail` is a sentence that says why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def decode_object(raw: bytes, called: str = BODY) -> dict[str, Any]:
    """Decode a JSON object.

    Args:
        raw: the text, in UTF-8.
        called: what the error's sentence calls the text.

    Raises:
        InvalidJsonError: it is not one, or parsers may understand it differently.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _decode_strictly(raw, called)
    if type(document) is dict:
        # Each key and each string has two quotation marks; if there are more, a key is duplicated, or one is escaped.
        quotes = raw.count(b'"')
        # Usual documents are objects of plain strings.
        if quotes == 4 * len(document) and set(map(type, document.values())) == {str}:
            return document
        if quotes == _quotes_of(document, _FAST_LEVELS):
            return document
    return _decode_strictly(raw, called)


def _quotes_of(value: dict[str, Any] | list[Any], levels: int) -> int:
    """How many quotation marks a document has at least; -1 if parsers may understand it differently.

    Args:
        value: an object or an array.
        levels: how deeply it may be nested.
    """
    quotes = 0
    members: Iterable[Any] = value
    if type(value) is dict:
        quotes = 2 * len(value)
        members = value.values()
    for each in members:
        kind = type(each)
        if kind is str:
            quotes += 2
        elif kind is dict or kind is list:
            nested = _quotes_of(each, levels - 1) if levels > 1 else -1
            if nested < 0:
                return -1
            quotes += nested
        elif kind is float:
            return -1  # `_number` has rules for it, and it may be an integer of more digits than orjson reads
    return quotes


def _decode_strictly(raw: bytes, called: str) -> dict[str, Any]:
    must_be = _EXAMPLE if called == BODY else "a JSON object"
    if not raw:
        raise InvalidJsonError(f"{called} is empty; it must be {must_be}.")
    try:
        document = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"{called} is not UTF-8: byte {error.start} is invalid.") from None
    except json.JSONDecodeError as error:
        if error.doc.startswith("\ufeff"):
            raise InvalidJsonError(f"{called} starts with a byte order mark; remove it.") from None
        reason = error.msg.partition(":")[0]
        raise InvalidJsonError(
            f"{called} is not JSON: {reason} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise too_deep(called) from None
    if not isinstance(document, dict):
        raise InvalidJsonError(f"{called} must be {must_be}.")
    return document


def too_deep(called: str = BODY) -> InvalidJsonError:
    """The error of a document that is nested too deeply."""
    return InvalidJsonError(f"{called} is nested too deeply.")


def starts_too_deep(start: bytes) -> bool:
    """Whether this start of a document is already nested too deeply."""
    try:
        _DECODER.decode(start.decode("utf-8", "replace"))
    except RecursionError:
        return True
    except (ValueError, InvalidJsonError):
        pass
    return False


def shown(name: str) -> str:
    """A name that the client chose, for a message: quoted, unless it is long or not printable ASCII."""
    return f'"{name}"' if is_fit(name) else "A name"


def is_fit(text: str) -> bool:
    """Whether a text of the client's may be repeated in a message."""
    return len(text) <= _MAX_SHOWN and text.isascii() and text.isprintable()


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise InvalidJsonError(f"{shown(repeated)} appears more than once in an object.")
    return result


def _refuse_constant(name: str) -> Never:
    raise InvalidJsonError(f"{name} is not a JSON number.")


def _bounded_integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise InvalidJsonError(f"A number has more than {_MAX_DIGITS} digits.")
    return int(digits)


def _number(text: str) -> float:
    """A number with a point or an exponent. 5.0 becomes the integer 5, as JSON Schema defines it."""
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJsonError("A number is too large; the largest is about 1.8e308.")
    if value == 0:
        if text.lower().partition("e")[0].strip("-0.") != "":
            raise InvalidJsonError("A number is too close to 0; the smallest is about 5e-324. Send 0 or leave it out.")
        # Not by Decimal: the exponent of 0 may be beyond its range.
        return 0
    # The comparison excludes numbers that only round to an integer.
    return int(value) if value.is_integer() and Decimal(text) == value else value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_bounded_integer,
    parse_float=_number,
)
