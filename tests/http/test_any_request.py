"""Whatever a client sends to any route, it is told what is wrong: never an internal error, and never an exception."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracer

from claimsvc.domain import StrategyName, TokenRefused
from claimsvc.http.app import create_app
from claimsvc.http.framework.bodies import parse_body
from claimsvc.http.framework.routing import Route
from claimsvc.http.framework.schemas import ClaimCoupon
from claimsvc.http.routes import ROUTES
from claimsvc.http.server.problems import RefusedError
from claimsvc.observability.tracing.requests import RequestTracer
from claimsvc.representations.code_files import CSV, NDJSON, BadCodeFileError, RowReader
from claimsvc.representations.coupons import ChangeCoupon, CreateCoupon
from claimsvc.representations.strict_json import InvalidJsonError, decode_object
from claimsvc.representations.user_lists import BadListError, ListFormat, ListReader
from tests.http.gated import EXPRESS, ORDINARY
from tests.http.memory_services import Observations, Service, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.raw_http import connected, request
from tests.support.serving import served

_EXPONENT = "1e-99999999999999999999"
# Numbers, texts and nesting at which parsers fail, as JSON.
_HOSTILE = (
    *(_EXPONENT, "-" + _EXPONENT, "0e99999999999999999999", "1e999", "1e-400", "-0.0", "1" * 5000, "9" * 40, "5e-324"),
    *("0." + "9" * 400, "9007199254740993.0", '"\\ud800"', '"\\u0000"', '"\\udc00\\ud800"', "[" * 3000, "NaN"),
    *('{"a":' * 3000, '{"a":1,"a":2}', '"\\x"', "1.", "--1", "1e"),
)
_TIMES = ('"2027-01-01T00:00:00Z"', '"9999-12-31T23:59:59.9999999Z"', '"0001-01-01T00:00:00+23:59"')
_json_texts = st.recursive(
    st.sampled_from((*_HOSTILE, *_TIMES))
    | st.text().map(json.dumps)
    | st.integers().map(str)
    | st.floats().map(json.dumps),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(st.tuples(st.text(max_size=4), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
# The console's stream is 503 without a live picture.
_ANSWERED = [route for route in ROUTES if route.path != "/console/events"]
_FIELDS = sorted(
    {
        field
        for route in ROUTES
        for part in ("body", "query")
        if (model := route.model(part)) is not None
        for field in model.model_fields
    }
)
_FITTING = {
    "user_id": '"ann"',
    "coupon_name": '"plenty"',
    "name": '"new"',
    "amount": "5",
    "reason": '"because"',
    "count": "1",
    "pattern": '"AAAA-9999"',
}
# Objects with the names that routes know, most of them with values that fit, so that what is behind them is reached.
_objects = st.lists(
    st.sampled_from(_FIELDS).flatmap(
        lambda name: st.tuples(st.just(name), st.just(_FITTING.get(name, "null")) | _json_texts)
    ),
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}")
_bodies = st.one_of(
    _objects.map(str.encode),
    _json_texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
    st.lists(st.sampled_from(["code", "user_id", "a", ",", '"', "\n", "\r", "\x00", "é", "\ufeff"]), max_size=20).map(
        lambda parts: "".join(parts).encode()
    ),
    _objects.map(lambda text: f"{text}\n{text}".encode()),
)
_names = st.sampled_from(
    [
        *("Accept", "Accept-Encoding", "Content-Encoding", "Content-Type", "Cookie", "Expect", "Forwarded", "Host"),
        *("Idempotency-Key", "If-None-Match", "Prefer", "Range", "X-Forwarded-For", "X-Request-ID", "traceparent"),
        *("tracestate", "Authorization", "X-Any"),
    ]
)
_values = st.one_of(
    st.sampled_from(
        [
            *("application/json", "application/json; charset=utf-8", "text/csv", "application/x-ndjson", "text/plain"),
            *("application/json" + "(" * 300, "application/json;" * 400, 'text/csv; charset="', "gzip", "identity"),
            *("100-continue", "text/html", "Bearer a.b.c", ADMIN["Authorization"], '"key"', "Bearer " + "W1tb." * 900),
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
)
_parts = st.sampled_from(["plenty", "last", "none", "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90", "sold-out"]) | st.text(
    max_size=20
).filter(lambda text: text not in {"", ".", ".."})
_queries = st.lists(st.tuples(st.sampled_from(_FIELDS) | st.text(max_size=5), st.text(max_size=20)), max_size=3)


@dataclass
class Running:
    """The service of a test, and the loop that it runs in."""

    runner: asyncio.Runner
    service: Service

    def answer(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """The status of the first final response, and its body if it is a problem."""

        async def ask() -> tuple[int, dict[str, Any]]:
            async with connected(self.service.port) as wire:
                await wire.send(data)
                head = b"HTTP/1.1 100 "
                while head.startswith(b"HTTP/1.1 100 "):
                    head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), 10)
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await wire.reader.readexactly(int(length[1]) if length else 0)
                return int(head.split()[1]), json.loads(body) if b"problem+json" in head else {}

        return self.runner.run(ask())

    def status(self, data: bytes) -> int:
        """The status of the first response."""

        async def ask() -> int:
            async with connected(self.service.port) as wire:
                await wire.send(data)
                head = await asyncio.wait_for(wire.reader.readline(), 10)
                return int(head.split()[1])

        return self.runner.run(ask())


@contextmanager
def _running(**changes: object) -> Iterator[Running]:
    store = MemoryStore()
    with asyncio.Runner() as runner, structlog.testing.capture_logs() as lines:
        runner.run(store.create_coupon("plenty", 100_000, StrategyName.REDLOCK))
        runner.run(store.create_coupon("last", 1, StrategyName.REDLOCK))
        observations = Observations()
        serving = served(create_app(memory_services(store, observations, **changes)))
        port = runner.run(serving.__aenter__())
        yield Running(runner, Service("", port, store, observations, None, lines))  # type: ignore[arg-type]
        runner.run(serving.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with _running() as found:
        yield found


class _NoTokens:
    """`ports.Tokens` of an issuer that has signed none."""

    def user_at_hand(self, token: str) -> TokenRefused:
        return TokenRefused("no token is good")

    user_soon = user_at_hand

    async def user_of(self, token: str) -> TokenRefused:
        return self.user_at_hand(token)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """With users' tokens, traces, and a proxy whose headers are believed: more headers are parsed."""
    tracer, proxies = RequestTracer(NoOpTracer(), 10**6), [ip_network("127.0.0.0/8")]
    with _running(tokens=_NoTokens(), tracer=tracer, trusted_proxies=proxies) as found:
        yield found


def _request(data: Any, route: Route) -> bytes:
    path = "/".join(
        quote(data.draw(_parts), safe="", errors="surrogatepass") if part.startswith("{") else part
        for part in route.path.split("/")
    )
    query = "&".join(
        f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}"
        for name, value in data.draw(_queries)
    )
    kind = "application/json" if route.streamed is None else data.draw(st.sampled_from(sorted(route.streamed.content)))
    headers = {"Content-Type": kind, **ADMIN, **dict(data.draw(st.lists(st.tuples(_names, _values), max_size=2)))}
    body: bytes = data.draw(_bodies)
    head = {"Host": "x", **headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in head.items())
    target = f"{path}?{query}" if query else path
    return f"{route.method} {target} HTTP/1.1\r\n".encode() + lines + b"\r\n" + body


@pytest.mark.parametrize("route", _ANSWERED, ids=lambda route: f"{route.method} {route.path}")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_to_any_route_is_an_internal_error(
    running: Running, guarded: Running, route: Route, data: Any
) -> None:
    sent = _request(data, route)
    for service in (running, guarded):
        service.service.lines.clear()
        assert service.status(sent) < 500, (sent, service.service.lines)


_CLAIM_BODIES = st.one_of(
    _bodies,
    st.lists(
        st.sampled_from(("user_id", "coupon_name", "type", "hold_seconds", "attributes", "x")).flatmap(
            lambda name: st.tuples(st.just(name), st.just(_FITTING.get(name, "null")) | _json_texts)
        ),
        max_size=4,
    ).map(
        lambda pairs: ("{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}").encode("utf-8", "replace")
    ),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=_CLAIM_BODIES, header=st.tuples(_names, _values))
def test_the_fast_path_answers_any_claim_as_the_ordinary_way_does(
    running: Running, body: bytes, header: tuple[str, str]
) -> None:
    """Which has no problem of the server either. What the fast path does not take, both leave to the ordinary one."""
    name, value = header
    extra = {} if name in {"Content-Type", "Authorization"} else {name: value}
    lines = b"".join(f"{each}: {extra[each]}\r\n".encode("latin-1") for each in extra)
    problems = []
    for content_type in (EXPRESS, ORDINARY):
        head = f"Host: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n".encode()
        status, problem = running.answer(b"POST /api/coupons/claim HTTP/1.1\r\n" + head + lines + b"\r\n" + body)
        assert status < 500, (body, running.service.lines)
        problems.append((status, problem.get("errors")) if status in {400, 413, 415, 417} else ("decided", None))
    assert problems[0] == problems[1]


@pytest.mark.parametrize("value", _HOSTILE)
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/api/coupons/claim", "application/json"),
        ("POST", "/api/coupons/plenty/codes", "application/x-ndjson"),
        ("PUT", "/api/coupons/plenty/deny-list", "application/x-ndjson"),
        ("PATCH", "/api/coupons/plenty", "application/json"),
    ],
)
def test_a_value_at_which_parsers_fail_is_refused_on_every_way_in(
    running: Running, method: str, path: str, kind: str, value: str
) -> None:
    for name in ("user_id", "code", "metadata"):
        body = f'{{"{name}": {value}}}'.encode()
        headers = {**ADMIN, "Content-Type": kind, "Connection": "close"}
        # 404: a row that is not valid is refused by the codes' storage, and the one in memory knows no coupon.
        assert running.status(request(method, path, body, **headers)) in {400, 404, 422}


@given(_json_texts | _objects)
def test_a_document_is_decoded_or_not_json(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    with suppress(InvalidJsonError):
        assert isinstance(decode_object(raw), dict)
    for model in (ClaimCoupon, CreateCoupon, ChangeCoupon):
        with suppress(RefusedError):
            assert isinstance(parse_body(model, raw), model)


@given(st.lists(_bodies, max_size=3))
def test_a_file_is_read_or_refused(pieces: list[bytes]) -> None:
    for media_type in (CSV, NDJSON):
        rows = RowReader(media_type)
        with suppress(BadCodeFileError):
            for piece in pieces:
                rows.feed(piece)
            rows.finish()
    for list_format in ListFormat:
        users = ListReader(list_format)
        with suppress(BadListError):
            for piece in pieces:
                users.feed(piece)
            users.end()


@pytest.mark.parametrize(
    ("text", "value"),
    [("5.0", 5), ("0.0", 0), ("0e99999999999999999999", 0), ("1E2", 100), ("5e-324", 5e-324), ("0.5", 0.5)],
)
def test_numbers_have_one_value(text: str, value: float) -> None:
    found = decode_object(f'{{"a": {text}}}'.encode())["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", [_EXPONENT, "-1e-400", "0." + "0" * 400 + "1"])
def test_a_number_that_would_become_0_is_refused(text: str) -> None:
    with pytest.raises(InvalidJsonError, match="too close to 0"):
        decode_object(f'{{"a": {text}}}'.encode())
