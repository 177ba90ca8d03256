"""JSON objects of which every parser has the same understanding.

What two parsers may understand differently (a repeated key, NaN, a number that no machine holds) is an error here.
"""

import json
import math
from collections import Counter
from decimal import Decimal
from typing import Any, Never

import orjson

# More digits than any number of the contract has; int() itself takes quadratic time and gives up at 4300.
_MAX_DIGITS = 32
_MAX_SHOWN = 64


class InvalidJsonError(Exception):
    """The text is not a JSON object, or not one that is allowed; `detail` is a sentence that says why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def decode_object(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        InvalidJsonError: it is not one, or parsers may understand it differently.
    """
    if (usual := _decode_usual(raw)) is not None:
        return usual
    if not raw:
        raise InvalidJsonError("It is empty; a JSON object is needed.")
    try:
        document = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"It is not UTF-8, from byte {error.start} on.") from None
    except json.JSONDecodeError as error:
        if error.doc.startswith("\ufeff"):
            raise InvalidJsonError("It starts with a byte order mark; JSON has none.") from None
        reason = error.msg.partition(":")[0]
        raise InvalidJsonError(f"It is not JSON: {reason} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise too_deep() from None
    if not isinstance(document, dict):
        raise InvalidJsonError("A JSON object is needed.")
    return document


def too_deep() -> InvalidJsonError:
    """The error of a document that is nested too deeply."""
    return InvalidJsonError("It is nested too deeply.")


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
    return f'"{name}"' if is_fit(name) else "One name"


def is_fit(text: str) -> bool:
    """Whether a text of the client's may be repeated in a message."""
    return len(text) <= _MAX_SHOWN and text.isascii() and text.isprintable()


def _decode_usual(raw: bytes) -> dict[str, str] | None:
    """The document, if it is an object of plain texts, as nearly all are; None if it has to be looked at closely.

    Each of its keys and values has two quotation marks around it; where there are more in all, one is escaped, or a key
    appears twice.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if type(document) is not dict or raw.count(b'"') != 4 * len(document):
        return None
    return document if set(map(type, document.values())) == {str} else None


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise InvalidJsonError(f"{shown(repeated)} appears twice in one object.")
    return result


def _refuse_constant(name: str) -> Never:
    raise InvalidJsonError(f"{name} is not a JSON number.")


def _bounded_integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise InvalidJsonError(f"A number has more than {_MAX_DIGITS} digits.")
    return int(digits)


def _number(text: str) -> float:
    """A number with a point or an exponent; to JSON Schema, and so to the OpenAPI document, 5.0 is the integer 5."""
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJsonError("A number is too large.")
    # Not what merely rounds to a whole number.
    return int(value) if value.is_integer() and Decimal(text) == value else value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_bounded_integer,
    parse_float=_number,
)
