"""The parsers, each with what must hold whatever it is given.

A target takes bytes and returns nothing. Only the errors that a parser documents may come out of it, and they are
handled here; anything else that it raises is a fault, as is an assertion that fails, or an input that takes too long.
"""

import asyncio
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from aiohttp import ClientSession, web
from multidict import CIMultiDict
from opentelemetry.trace import NoOpTracer
from pydantic import ValidationError
from yarl import URL

from claimsvc.client.errors import ClaimClientError
from claimsvc.client.reading import claim_of, coupon_of, document_of, page_of, problem_of
from claimsvc.client.refusals import OF_CANCELLING, OF_CLAIMING, OF_CONFIRMING, OF_CREATING, refusal
from claimsvc.client.retries import advised_seconds
from claimsvc.client.sending import ClientResponse
from claimsvc.domain import ANYBODY, NewCode, TokenRefused, is_visible_line
from claimsvc.domain.code_generation import GENERATION_PATTERN, make_codes, possibilities, regular_expression
from claimsvc.domain.codes import new_code, with_type
from claimsvc.domain.times import parse_time
from claimsvc.http.framework import parameters
from claimsvc.http.framework.bodies import _inflate, parse_body
from claimsvc.http.framework.content_type import parse as parse_content_type
from claimsvc.http.framework.idempotency import key_of
from claimsvc.http.framework.preferences import parse as parse_preferences
from claimsvc.http.framework.services import CALLER
from claimsvc.http.framework.validation import validate_query
from claimsvc.http.routes import ROUTES
from claimsvc.http.server.addresses import client_address
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import RefusedError
from claimsvc.http.server.wire import IDEMPOTENCY_KEY, MAX_BODY_BYTES
from claimsvc.identity.signatures import key_of as public_key_of
from claimsvc.identity.tokens import JsonWebTokens
from claimsvc.observability.tracing.requests import RequestTracer
from claimsvc.representations.benefits import benefit_of
from claimsvc.representations.code_files import CSV, NDJSON, BadCodeFileError, RowReader
from claimsvc.representations.strict_json import InvalidJsonError, decode_object
from claimsvc.representations.user_lists import BadListError, ListFormat, ListReader
from tests.fuzz.service import MemoryServer
from tests.support.admin import ADMIN_KEY
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}

_TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
_BODIES = [model for route in ROUTES if (model := route.model("body")) is not None]
_QUERIES = [model for route in ROUTES if (model := route.model("query")) is not None]
_SERVER_FAULT = re.compile(rb"HTTP/1\.[01] 500 ")


def target(function: Target) -> Target:
    """Add a target, under its function's name."""
    TARGETS[function.__name__] = function
    return function


def _latin(data: bytes) -> str:
    """A header's value as aiohttp has it."""
    return data.decode("utf-8", "surrogateescape")


def _pieces(data: bytes) -> Iterator[bytes]:
    """The data in pieces whose lengths depend on it."""
    place, length = 0, 1 + sum(data[:8]) % 7
    while place < len(data):
        yield data[place : place + length]
        place, length = place + length, 1 + length * 3 % 50


@target
def content_type(data: bytes) -> None:
    """Nothing is raised; a media type is short and in lower case, and is understood alike when it is written anew."""
    found = parse_content_type(_latin(data))
    assert found.media_type == found.media_type.lower()
    assert len(found.media_type) <= 256
    if found.charset is not None and re.fullmatch(r"[a-z0-9-]+", found.charset):
        assert parse_content_type(f"{found.media_type}; charset={found.charset}") == found


@target
def strict_json(data: bytes) -> None:
    """`InvalidJsonError`, or an object that is the same after it was written and read."""
    with suppress(InvalidJsonError):
        document = decode_object(data)
        assert decode_object(json.dumps(document).encode()) == document


@target
def bodies(data: bytes) -> None:
    """`RefusedError` with 20 errors at most, or a body that is the same after it was written and read."""
    for model in _BODIES:
        body, refused = None, None
        try:
            body = parse_body(model, data)
        except RefusedError as error:
            refused = error
        assert refused is None or len(refused.errors) <= 20
        assert body is None or parse_body(model, body.model_dump_json(exclude_unset=True).encode()) == body


@target
def gzip(data: bytes) -> None:
    """`RefusedError`, or a body within the limit."""
    with suppress(RefusedError):
        assert len(_inflate(data)) <= MAX_BODY_BYTES


_Row = TypeVar("_Row")


def _read(
    feed: Callable[[bytes], list[_Row]], end: Callable[[], list[_Row]], pieces: Iterable[bytes]
) -> list[_Row] | None:
    """What is read from these pieces; None if they are refused."""
    try:
        return [row for piece in pieces for row in feed(piece)] + end()
    except (BadCodeFileError, BadListError):
        return None


@target
def code_files(data: bytes) -> None:
    """`BadCodeFileError`, or rows. Neither depends on the pieces that arrive; a row is read as it is shown."""
    for media_type in (CSV, NDJSON):
        whole, parts = RowReader(media_type), RowReader(media_type)
        rows = _read(whole.feed, whole.finish, [data])
        assert _read(parts.feed, parts.finish, _pieces(data)) == rows
        for row in rows or ():
            if isinstance(row, NewCode):
                shown = new_code(row.row, row.code, row.expires_at.isoformat() if row.expires_at else None)
                assert with_type(shown, row.type) == replace(row, benefit=None)
                assert row.benefit is None or benefit_of(row.benefit) == row.benefit


@target
def user_lists(data: bytes) -> None:
    """`BadListError`, or users, each a valid id. Neither depends on the pieces in which they arrive."""
    for list_format in ListFormat:
        whole, parts = ListReader(list_format), ListReader(list_format)
        users = _read(whole.feed, whole.end, [data])
        assert _read(parts.feed, parts.end, _pieces(data)) == users
        assert users is None or (users and all(re.fullmatch(r"[!-~]{1,255}", user) for user in users))


@target
def queries(data: bytes) -> None:
    """`RefusedError`, or a query whose cursor names a position."""
    try:
        url = URL(f"/x?{_latin(data)}", encoded=True)
        url.query.items()
    except ValueError:
        return  # aiohttp refuses the request before the service sees it
    for model in _QUERIES:
        with suppress(RefusedError):
            _positions(validate_query(model, cast("web.Request", SimpleNamespace(rel_url=url))))


@target
def cursors(data: bytes) -> None:
    """`ValidationError`, or a position."""
    models = (parameters.CouponsQuery, parameters.ClaimsQuery, parameters.UserClaimsQuery, parameters.AuditQuery)
    for model in models:
        with suppress(ValidationError):
            _positions(model.model_validate({"cursor": _latin(data)}))


def _positions(query: Any) -> None:
    for name in ("after", "last", "filter", "states"):
        if hasattr(query, name):
            getattr(query, name)()


@target
def code_patterns(data: bytes) -> None:
    """A pattern that is accepted makes as many codes as it says, and its expression matches each of them."""
    pattern = _latin(data)
    if re.fullmatch(GENERATION_PATTERN, pattern):
        matching = re.compile(regular_expression(pattern))
        codes = make_codes(pattern, min(5, possibilities(pattern)))
        assert all(matching.fullmatch(code) for code in codes)
        assert all(isinstance(new_code(1, code, None), NewCode) for code in codes if code.strip("."))


@target
def codes_and_times(data: bytes) -> None:
    """A code that is accepted is accepted again, unchanged; a time is the same after it was written and read."""
    text = data.decode("utf-8", "replace")
    row = new_code(1, text, None)
    if isinstance(row, NewCode):
        assert new_code(1, row.code, None) == row
    is_visible_line(text)
    with suppress(ValueError):
        moment = parse_time(text)
        assert parse_time(moment.isoformat()) == moment


@target
def idempotency_keys(data: bytes) -> None:
    """`RefusedError`, or a key of 1 to 255 characters that is the same when it is sent as a string of RFC 9651."""

    def key(value: str) -> str | None:
        request: Any = {CALLER: ANYBODY, REQUEST_ID: "id"}
        found = key_of(cast("web.Request", _Request(request, {IDEMPOTENCY_KEY: value})), None)
        return None if found is None else found.key

    with suppress(RefusedError):
        found = key(_latin(data))
        assert found is not None
        assert 1 <= len(found) <= 255
        escaped = found.replace("\\", "\\\\").replace('"', '\\"')
        assert key(f'"{escaped}"') == found


@target
def preferences(data: bytes) -> None:
    """Nothing is raised; what is understood is understood alike in headers of its own, whatever follows it."""
    found = parse_preferences(_latin(data).split("\n"))
    assert found.wait_seconds is None or 0 <= found.wait_seconds < 10**9
    told = ["respond-async"] * found.respond_async
    told += [f"WAIT = {found.wait_seconds};a=b"] * (found.wait_seconds is not None)
    assert parse_preferences([*told, 'wait=1 x, "'] if found.wait_seconds is not None else told) == found


class _Request(dict[Any, Any]):
    """As much of a request as `key_of` reads."""

    method, path = "POST", "/api/coupons/claim"

    def __init__(self, values: dict[Any, Any], headers: dict[str, str]) -> None:
        super().__init__(values)
        self.headers = CIMultiDict(headers)


@target
def forwarded_for(data: bytes) -> None:
    """None or an address, which does not depend on what stands before the trusted proxies."""
    found = client_address("10.0.0.1", _latin(data).split("\n"), _TRUSTED)
    assert found is not None
    ip_address(found.partition("/")[0])


@target
def trace_context(data: bytes) -> None:
    """Nothing is raised; an id of a trace is 32 digits in hex."""
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)  # as the service does
    parent, _, state = _latin(data).partition("\n")
    tracer = RequestTracer(NoOpTracer(), 10**9)
    found = tracer.begin("POST", "/x", {"traceparent": parent, "tracestate": state}).trace_id
    assert found is None or re.fullmatch(r"[0-9a-f]{32}", found)


@target
def client_answers(data: bytes) -> None:
    """What the Python client is answered, `Retry-After` before the body: an outcome, or an error of the client's."""
    header, _, body = data.partition(b"\n")
    document = document_of(body)
    for status in (200, 409, 503):
        problem = problem_of(status, document) if status >= 400 else None
        answer = ClientResponse(status, document, problem, "id", False, advised_seconds(_latin(header)), "")
        assert answer.retry_after_seconds is None or 0 <= answer.retry_after_seconds < float("inf")
        for reader in (claim_of, coupon_of, page_of):
            with suppress(ClaimClientError):
                answer.read(reader)
        for refusals in (OF_CLAIMING, OF_CONFIRMING, OF_CANCELLING, OF_CREATING):
            with suppress(ClaimClientError):
                refusal(answer, refusals)


@cache
def _tokens() -> tuple[asyncio.Runner, JsonWebTokens, Issuer]:
    runner, issuer = asyncio.Runner(), Issuer()
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        keys.write_text(json.dumps({"keys": [issuer.public()]}))

        async def opened() -> JsonWebTokens:
            async with ClientSession() as client:
                tokens = JsonWebTokens(
                    str(keys), issuer=ISSUER, audience=AUDIENCE, client=client, least_pause_seconds=10**9
                )
                await tokens.require()
                await tokens.refresh()
                return tokens

        return runner, runner.run(opened()), issuer


@target
def tokens(data: bytes) -> None:
    """`TokenRefused`, as nobody can sign; also where header and claims are those of a good token."""
    runner, verifier, issuer = _tokens()
    head, claims, signature = issuer.token("ann").split(".")
    sent = _latin(data)
    for token in (sent, f"{sent}.{claims}.{signature}", f"{head}.{sent}.{signature}", f"{head}.{claims}.{sent}"):
        assert isinstance(runner.run(verifier.user_of(token)), TokenRefused)


@target
def key_sets(data: bytes) -> None:
    """A key that can be verified with, or None."""
    with suppress(InvalidJsonError):
        public_key_of(decode_object(data))


@cache
def _server() -> MemoryServer:
    return MemoryServer()


def close() -> None:
    """Stop what the targets have started."""
    if _server.cache_info().currsize:
        _server().close()
        _server.cache_clear()
    if _tokens.cache_info().currsize:
        _tokens()[0].close()
        _tokens.cache_clear()


@target
def requests(data: bytes) -> None:
    """Whole requests, in pieces: never a 500, and nothing that fails unseen."""
    answered = _server().feed([piece for piece in re.split(b"(?<=\n)\x00", data) if piece])
    assert _SERVER_FAULT.search(answered) is None, answered


@target
def routes(data: bytes) -> None:
    """A well-formed request to one of the routes: its number, the query, lines of headers, the body. Never a 500.

    Claims that are usual take the fast path, all others aiohttp's.
    """
    head, _, body = data[1:].partition(b"\n\n")
    query, *lines = (line.strip(b" \r") for line in head.split(b"\n"))
    route = ROUTES[data[0] % len(ROUTES) if data else 0]
    path = re.sub(r"\{\w+\}", "plenty", route.path).encode() + query.replace(b" ", b"")
    if not any(line.lower().startswith(b"content-type") for line in lines):
        kind = "application/json" if route.streamed is None else min(route.streamed.content)
        lines.append(f"Content-Type: {kind}".encode())
    known = (b"Host: x", b"Authorization: Bearer %b" % ADMIN_KEY.encode(), b"Content-Length: %d" % len(body))
    requests(b"%b %b HTTP/1.1\r\n" % (route.method.encode(), path) + b"\r\n".join((*known, *lines, b"", body)))
