"""Reading a request's body: bounded in time and in size, JSON only, and nothing that JSON leaves open is let through.

What two parsers may understand differently (a repeated key, NaN, a number that no machine holds) is refused here,
before the model is asked.
"""

import asyncio
import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Never

import orjson
from aiohttp import hdrs, web

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.framework.validation import Model, shown, validate_body
from claimsvc.http.server.problems import (
    BODY_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
    BodyError,
    RefusedError,
    bad_body,
)
from claimsvc.http.server.wire import MAX_BODY_BYTES, PLAIN_JSON

_UTF_8 = frozenset({"utf-8", "utf8"})
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# More digits than any number of the contract has; int() itself takes quadratic time and gives up at 4300.
_MAX_DIGITS = 32
# A body too large to be taken is still looked at for this long, so that one that is nested without end is told so.
_PEEK_SECONDS = 0.25
_NOTHING: Mapping[str, Any] = {}


async def read_body(
    request: web.Request, model: type[Model], *, timeout_seconds: float, given: Mapping[str, Any] = _NOTHING
) -> Model:
    """The body as a `model`.

    Args:
        timeout_seconds: how long it may take to arrive.
        given: what is known without the body, where that does not say otherwise.

    Raises:
        RefusedError: it is not JSON, not in time, too large, or not what the model asks for.
    """
    gzipped = _check_headers(request)
    raw = await _read_raw(request, timeout_seconds)
    return parse_body(model, _inflate(raw) if gzipped else raw, given)


def parse_body(model: type[Model], raw: bytes, given: Mapping[str, Any] = _NOTHING) -> Model:
    """A body that is all there, and not compressed, as a `model`. Raises as `read_body`."""
    document = decode_object(raw)
    return validate_body(model, {**given, **document} if given else document)


def _check_headers(request: web.Request) -> bool:
    """Refuse what is not JSON in UTF-8; True if it is compressed with gzip."""
    if request.headers.get(hdrs.CONTENT_TYPE) not in PLAIN_JSON:
        media_type, charset = request.content_type, request.charset
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE)
        if charset is not None and charset.lower() not in _UTF_8:
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "JSON is in UTF-8; no other charset is taken.")
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is None or encoding.lower() == "identity":
        return False
    if encoding.lower() not in _GZIP:
        raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "The only Content-Encoding taken is gzip.")
    return True


async def _read_raw(request: web.Request, timeout_seconds: float) -> bytes:
    declared = request.content_length
    if declared is not None and declared > MAX_BODY_BYTES:
        raise _too_large(await _collect(request, _PEEK_SECONDS))
    if request.content.is_eof():
        # The usual case: the body came with the headers, and waiting for it needs no timer.
        raw = request.content.read_nowait()
    else:
        raw = await _collect(request, timeout_seconds)
        if not request.content.is_eof() and len(raw) <= MAX_BODY_BYTES:
            raise RefusedError(REQUEST_TIMEOUT, close=True)
    if len(raw) > MAX_BODY_BYTES:
        raise _too_large(raw)
    return raw


async def _collect(request: web.Request, timeout_seconds: float) -> bytes:
    """What arrives of the body within the time: all of it, or as much as shows that it is too large."""
    raw = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            while chunk := await request.content.readany():
                raw += chunk
                if len(raw) > MAX_BODY_BYTES:
                    break
    except TimeoutError:
        pass
    except (web.RequestPayloadError, ConnectionError):
        raise RefusedError(BAD_REQUEST, "The body is not as its headers say, or it broke off.", close=True) from None
    return bytes(raw)


def _too_large(start: bytes) -> RefusedError:
    """The refusal of a body that is too large, unless its start is already nested deeper than anything sensible."""
    try:
        _DECODER.decode(start.decode("utf-8", "replace"))
    except RecursionError:
        return _too_deep(close=True)
    except (ValueError, RefusedError):
        pass
    return RefusedError(BODY_TOO_LARGE, close=True)


def _too_deep(*, close: bool = False) -> RefusedError:
    return RefusedError(BAD_REQUEST, errors=(BodyError("It is nested too deeply.", "#"),), close=close)


def _inflate(raw: bytes) -> bytes:
    """The content of a gzip body; never more of it is made than one byte over the limit."""
    inflater = zlib.decompressobj(wbits=_GZIP_WINDOW)
    try:
        content = inflater.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise bad_body("It is not gzip, though Content-Encoding says so.") from None
    if len(content) > MAX_BODY_BYTES:
        raise _too_large(content)
    if not inflater.eof:
        raise bad_body("The gzip stream breaks off.")
    if inflater.unused_data:
        raise bad_body("Something follows the gzip stream.")
    return content


def decode_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that this is, with nothing in it that JSON leaves open. Raises as `read_body`."""
    if (usual := _decode_usual(raw)) is not None:
        return usual
    if not raw:
        raise bad_body("It is empty; a JSON object is needed.")
    try:
        document = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise bad_body(f"It is not UTF-8, from byte {error.start} on.") from None
    except json.JSONDecodeError as error:
        if error.doc.startswith("\ufeff"):
            raise bad_body("It starts with a byte order mark; JSON has none.") from None
        reason = error.msg.partition(":")[0]
        raise bad_body(f"It is not JSON: {reason} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(document, dict):
        raise bad_body("A JSON object is needed.")
    return document


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
        raise bad_body(f"{shown(repeated)} appears twice in one object.")
    return result


def _refuse_constant(name: str) -> Never:
    raise bad_body(f"{name} is not a JSON number.")


def _bounded_integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise bad_body(f"A number has more than {_MAX_DIGITS} digits.")
    return int(digits)


def _number(text: str) -> float:
    """A number with a point or an exponent; to JSON Schema, and so to the OpenAPI document, 5.0 is the integer 5."""
    value = float(text)
    if not math.isfinite(value):
        raise bad_body("A number is too large.")
    # Not what merely rounds to a whole number.
    return int(value) if value.is_integer() and Decimal(text) == value else value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_bounded_integer,
    parse_float=_number,
)
