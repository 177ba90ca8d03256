"""Reads a request's body: strict JSON only, within limits of time and size."""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web
from pydantic import ValidationError

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.framework.content_type import content_type_of
from claimsvc.http.framework.fingerprints import SENT
from claimsvc.http.framework.validation import Model, body_refused, refuse_unknown_names
from claimsvc.http.server.problems import (
    BODY_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
    BodyError,
    RefusedError,
    bad_body,
)
from claimsvc.http.server.wire import MAX_BODY_BYTES, PLAIN_JSON
from claimsvc.representations.mistakes import MAX_MISTAKES
from claimsvc.representations.strict_json import InvalidJsonError, decode_object, starts_too_deep, too_deep

_UTF_8 = frozenset({"utf-8", "utf8"})
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# How long the start of a body that is too large is read, to report endless nesting as such.
_PEEK_SECONDS = 0.25
_NOTHING: Mapping[str, Any] = {}
BROKEN_BODY = "The body is incomplete, or does not match its headers `Content-Length` or `Transfer-Encoding`."
"""The detail of the refusal if the transfer of a body fails."""


async def read_body(
    request: web.Request, model: type[Model], *, timeout_seconds: float, given: Mapping[str, Any] = _NOTHING
) -> Model:
    """Read the body and validate it.

    Args:
        request: the request; its body is consumed.
        model: what the body must be.
        timeout_seconds: how long the body may take to arrive.
        given: default values of members that the body may omit.

    Raises:
        RefusedError: the body is not JSON, does not arrive in time, is too large, or does not match the model.
    """
    gzipped = _check_headers(request)
    raw = await _read_raw(request, timeout_seconds)
    return _sent_in(request, model, _inflate(raw) if gzipped else raw, given)


async def read_optional_body(request: web.Request, model: type[Model], *, timeout_seconds: float) -> Model | None:
    """Read a body that may be left out; None if it is empty, whatever its headers are. Otherwise as `read_body`."""
    raw = await _read_raw(request, timeout_seconds)
    if not raw:
        return None
    return _sent_in(request, model, _inflate(raw) if _check_headers(request) else raw)


def _sent_in(request: web.Request, model: type[Model], raw: bytes, given: Mapping[str, Any] = _NOTHING) -> Model:
    """Validate the body, and keep what was sent for the fingerprint of an idempotency key."""
    request[SENT] = document = decode_body(raw)
    return validate_body(model, document, given)


def parse_body(model: type[Model], raw: bytes, given: Mapping[str, Any] = _NOTHING) -> Model:
    """Validate a complete, uncompressed body. Arguments and errors are those of `read_body`."""
    return validate_body(model, decode_body(raw), given)


def decode_body(raw: bytes) -> dict[str, Any]:
    """Decode a complete, uncompressed body. Raises as `read_body`."""
    try:
        return decode_object(raw)
    except InvalidJsonError as error:
        raise _invalid(error) from None


def validate_body(model: type[Model], document: dict[str, Any], given: Mapping[str, Any] = _NOTHING) -> Model:
    """Validate a decoded body. Arguments and errors are those of `read_body`."""
    if given:
        document = {**given, **document}
    if len(document) > MAX_MISTAKES:
        refuse_unknown_names(model, document)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise body_refused(error, model) from None


def _check_headers(request: web.Request) -> bool:
    """Refuse a body that is not JSON in UTF-8. Returns whether it is compressed with gzip."""
    if request.headers.get(hdrs.CONTENT_TYPE) not in PLAIN_JSON:
        media_type, charset = content_type_of(request)
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE)
        if charset is not None and charset not in _UTF_8:
            raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "The charset of the body must be UTF-8.")
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is None or encoding.lower() == "identity":
        return False
    if encoding.lower() not in _GZIP:
        raise RefusedError(UNSUPPORTED_MEDIA_TYPE, "`Content-Encoding` must be `gzip` or absent.")
    return True


async def _read_raw(request: web.Request, timeout_seconds: float) -> bytes:
    declared = request.content_length
    if declared is not None and declared > MAX_BODY_BYTES:
        raise _too_large(await _collect(request, _PEEK_SECONDS))
    if request.content.is_eof():
        # The usual case: the body arrived with the headers, so no timer is needed.
        try:
            raw = request.content.read_nowait()
        except (web.RequestPayloadError, ConnectionError):
            raise RefusedError(BAD_REQUEST, BROKEN_BODY, close=True) from None
    else:
        raw = await _collect(request, timeout_seconds)
        if not request.content.is_eof() and len(raw) <= MAX_BODY_BYTES:
            raise RefusedError(REQUEST_TIMEOUT, close=True)
    if len(raw) > MAX_BODY_BYTES:
        raise _too_large(raw)
    return raw


async def _collect(request: web.Request, timeout_seconds: float) -> bytes:
    """The part of the body that arrives in time: all of it, or enough to see that it is too large."""
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
        raise RefusedError(BAD_REQUEST, BROKEN_BODY, close=True) from None
    return bytes(raw)


def _too_large(start: bytes) -> RefusedError:
    """The refusal of a body that is too large; if its start is nested too deeply, the refusal says so instead."""
    if starts_too_deep(start):
        return _invalid(too_deep(), close=True)
    return RefusedError(BODY_TOO_LARGE, close=True)


def _invalid(error: InvalidJsonError, *, close: bool = False) -> RefusedError:
    return RefusedError(BAD_REQUEST, errors=(BodyError(error.detail, "#"),), close=close)


def _inflate(raw: bytes) -> bytes:
    """Decompress a gzip body, at most to one byte over the limit."""
    inflater = zlib.decompressobj(wbits=_GZIP_WINDOW)
    try:
        content = inflater.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise bad_body("The body is not gzip, although `Content-Encoding` is `gzip`.") from None
    if len(content) > MAX_BODY_BYTES:
        raise _too_large(content)
    if not inflater.eof:
        raise bad_body("The gzip stream is incomplete.")
    if inflater.unused_data:
        raise bad_body("The body continues after the end of the gzip stream.")
    return content
