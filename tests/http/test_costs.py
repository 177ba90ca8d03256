"""What it costs to parse hostile input grows with its length, never with the square of it.

Twice the input may cost 2.5 times as much. Costs are CPU times of this process, the least of several; what costs less
than 3 ms at full length is too quick to compare: at 1 ns a step, the square of 8 KB is 64 ms.
"""

import asyncio
import gc
import gzip
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from opentelemetry.trace import NoOpTracer
from pydantic import BaseModel, ValidationError
from yarl import URL

from claimsvc.domain import StrategyName, is_visible_line
from claimsvc.domain.code_generation import possibilities, regular_expression
from claimsvc.domain.codes import new_code
from claimsvc.domain.times import parse_time
from claimsvc.http.app import create_app
from claimsvc.http.framework import bodies, preferences, schemas
from claimsvc.http.framework.bodies import parse_body
from claimsvc.http.framework.content_type import parse
from claimsvc.http.framework.idempotency import KEY_PATTERN
from claimsvc.http.framework.parameters import AuditQuery, ClaimsQuery, CouponsQuery, UserClaimsQuery
from claimsvc.http.framework.validation import body_refused, validate_query
from claimsvc.http.resources.codes.schemas import GenerateCodes
from claimsvc.http.server.addresses import client_address
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.hosts import AllowedHosts
from claimsvc.http.server.problems import RefusedError
from claimsvc.identity.tokens import JsonWebTokens, open_tokens
from claimsvc.observability.tracing.requests import RequestTracer
from claimsvc.representations.code_files import CSV, NDJSON, BadCodeFileError, RowReader
from claimsvc.representations.coupons import CreateCoupon
from claimsvc.representations.strict_json import InvalidJsonError, decode_object
from claimsvc.representations.user_lists import BadListError, ListFormat, ListReader
from tests.http.memory_services import Observations, memory_services
from tests.support.admin import ADMIN
from tests.support.memory_store import MemoryStore
from tests.support.raw_http import request
from tests.support.serving import served
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer, bearer

_QUICK_SECONDS = 0.003
# What takes so long is measured a few times only.
_SLOW_SECONDS = 0.1
_SLOW_TRIES = 3
_MOST_GROWTH = 2.5
_TRIES = 15
# On a busy machine the least costs are found later; what is quadratic stays four times as much.
_MOST_TRIES = 90
# What every refusal of a parser may raise; anything else fails the test.
_REFUSED = (RefusedError, InvalidJsonError, BadCodeFileError, BadListError, ValidationError, ValueError)

Action = Callable[[], object]


@contextmanager
def _without_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _seconds(action: Action) -> float:
    started = time.process_time()
    with suppress(*_REFUSED):
        action()
    return time.process_time() - started


def growth(half: Action, whole: Action) -> float:
    """How many times the cost of half the input that of the whole is; 0 if that is too little to compare."""
    least = whole_least = math.inf
    with _without_collections():
        for tries in range(1, _MOST_TRIES + 1):
            # In turn, so that what disturbs one disturbs the other.
            whole_least, least = min(whole_least, _seconds(whole)), min(least, _seconds(half))
            if whole_least < _QUICK_SECONDS:
                return 0.0
            if tries >= _TRIES and whole_least < _MOST_GROWTH * least:
                break
    return whole_least / least


def _claim(**members: Any) -> bytes:
    return json.dumps({"user_id": "ann", "coupon_name": "plenty", **members}).encode()


def _coupon(**members: Any) -> bytes:
    return json.dumps({"name": "new", "amount": 1, **members}).encode()


def _body(model: Any, make: Callable[[int], bytes]) -> Callable[[int], Action]:
    def action(size: int) -> Action:
        raw = make(size)
        return lambda: parse_body(model, raw)

    return action


def _text(
    function: Callable[[str], object], unit: str, *, before: str = "", after: str = ""
) -> Callable[[int], Action]:
    def action(size: int) -> Action:
        text = before + unit * (size // len(unit)) + after
        return lambda: function(text)

    return action


def _row(kind: str, unit: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        reader = RowReader(kind)
        return [reader.feed(f"{text}\n".encode()) for _ in range(8)]

    return read


def _listed(kind: ListFormat) -> Callable[[str], object]:
    return lambda text: ListReader(kind).feed(f"user_id\n{text}\n".encode())


def _traced(header: str) -> Callable[[str], object]:
    tracer = RequestTracer(NoOpTracer(), 1000)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    return lambda text: tracer.begin("POST", "/api/coupons/claim", {"traceparent": parent, header: text})


def _selected(model: type[BaseModel]) -> Callable[[str], object]:
    return lambda text: model.model_validate({"cursor": text})


def _queried(text: str) -> object:
    request: Any = SimpleNamespace(rel_url=URL(f"/api/coupons?{text}", encoded=True))
    return validate_query(CouponsQuery, request)


def _generated(text: str) -> object:
    GenerateCodes.model_validate({"count": 1, "pattern": text})
    return possibilities(text), regular_expression(text)


@cache
def _verifier() -> tuple[asyncio.Runner, JsonWebTokens]:
    runner, issuer = asyncio.Runner(), Issuer()

    async def opened(path: str) -> JsonWebTokens:
        async with open_tokens(path, issuer=ISSUER, audience=AUDIENCE) as tokens:
            await tokens.refresh()
            return tokens

    with TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        path.write_text(json.dumps({"keys": [issuer.public()]}), encoding="utf-8")
        return runner, runner.run(opened(str(path)))


def _verified(text: str) -> object:
    runner, tokens = _verifier()
    return runner.run(tokens.user_of(text))


def _deflated(unit: bytes) -> Callable[[int], Action]:
    def action(size: int) -> Action:
        raw = gzip.compress(unit * (size // len(unit)))
        return lambda: bodies._inflate(raw)

    return action


def _dripped(kind: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        reader = RowReader(kind)
        return [reader.feed(letter.encode()) for letter in text]

    return read


_TIMES = (
    ("2027-01-01T00:00:00.", "9"),
    ("2027-01-01T00:00:00", "Z"),
    ("", "2027-"),
    ("2027-01-01T00:00:00.0Z", " "),
    ("", "9"),
)


def _addressed(header: str) -> Callable[[str], object]:
    hosts = AllowedHosts(("app",), loopback_port=8080, cors=Cors(("https://shop.example",)))
    return lambda text: hosts.refusal(CIMultiDictProxy(CIMultiDict({header: text})))


_TRUSTED = [ip_network("10.0.0.0/8")]
_MARKS = "\u0301\u0323"  # in the wrong order, so that they have to be sorted
# The parsers with the longest input that reaches each: a line of the head, a row of a file, or a body.
_LINE, _ROW, _BODY = 8000, 4000, 60_000
PARSERS: dict[str, tuple[int, Callable[[int], Action]]] = {
    **{
        f"Content-Type, {unit!r}": (_LINE, _text(parse, unit, before="application/json"))
        for unit in (";", "; ", "(", '"', "\\", ";a=", ';a="', " ", "=", ";charset=utf-8", ';a="\\', "a")
    },
    **{
        f"X-Forwarded-For, {unit!r}": (
            _LINE,
            _text(lambda text: client_address("10.0.0.1", [text] * 90, _TRUSTED), unit),
        )
        for unit in (",", "10.0.0.1,", ":", "[", ".", "1", "::1,", " ", "%")
    },
    **{
        f"{name}, {unit!r}": (_LINE, _text(_addressed(name), unit, before=before))
        for name, before in (("Host", ""), ("Host", "["), ("Origin", "http://"), ("Origin", "https://["))
        for unit in (":", ".", "1", "[", "a.", "1:", "::1", "]", "localhost")
    },
    **{f"tracestate, {unit!r}": (_LINE, _text(_traced("tracestate"), unit)) for unit in (" ", ",", "a=b,", "=", "a")},
    **{f"traceparent, {unit!r}": (_LINE, _text(_traced("traceparent"), unit)) for unit in (" ", "-", "0")},
    **{
        f"row of {kind}, {unit!r}": (_ROW, _text(_row(kind, unit), unit))
        for kind in (CSV, NDJSON)
        for unit in ('"', ",", '","', "[", '{"code":', "a", " ")
    },
    **{
        f"list of {kind}, {unit!r}": (_ROW, _text(_listed(kind), unit))
        for kind in ListFormat
        for unit in ('"', ",", '","', "[", '{"user_id":', "a", " ", '{"a":1,')
    },
    **{
        f"cursor of {model.__name__}, {unit!r}": (_LINE, _text(_selected(model), unit, before=before))
        for model in (CouponsQuery, ClaimsQuery, UserClaimsQuery, AuditQuery)
        for before, unit in (("", "2e"), ("", "6"), ("00064680d83b8a00", "0"), ("", "2E"))
    },
    **{
        f"query, {unit!r}": (_LINE, _text(_queried, unit, before="limit=5"))
        for unit in ("&", "&a", "&a=b", "%26", "%", "+", "&limit=5", ";", "=", "%ed%a0%80", "é")
    },
    **{
        f"token, {before}{unit!r}": (_LINE, _text(_verified, unit, before=before))
        for before in ("", "eyJhbGciOiJFUzI1NiIsImtpZCI6Im9uZSJ9.", "eyJhbGciOiJFUzI1NiIsImtpZCI6Im9uZSJ9.e30.")
        for unit in (".", "W1tb", "=", "a", "e30.", "eyJhIjoxfQ", "_", "\n")
    },
    **{
        f"idempotency key, {unit!r}": (_LINE, _text(re.compile(KEY_PATTERN).fullmatch, unit, before='"'))
        for unit in (" ", "\\", '\\"', "a", '"', " a")
    },
    **{
        f"Prefer, {unit!r}": (_LINE, _text(lambda text: preferences.parse([text] * 90), unit, before=before))
        for before in ("", "a", 'a="', "wait=")
        for unit in (",", ";", " ", "a ", "a; ", '"', "\\", '\\"', "=", 'a="', "wait=1,", "\t,")
    },
    **{f"pattern of codes, {unit!r}": (_LINE, _text(_generated, unit)) for unit in ("A", "9", "가", "A9", "-", "é")},
    **{f"time, {unit!r}": (_LINE, _text(parse_time, unit, before=before)) for before, unit in _TIMES},
    **{f"gzip of {unit!r}": (_BODY, _deflated(unit)) for unit in (b"\0", b"a", b"[", b'{"a":')},
    **{f"row of {kind}, byte by byte": (_ROW, _text(_dripped(kind), '"a')) for kind in (CSV, NDJSON)},
    "code of combining marks": (_ROW, _text(lambda text: new_code(1, text, None), _MARKS)),
    "reason": (_ROW, _text(is_visible_line, "\u200b", before="a")),
    **{
        f"JSON, {unit!r}": (_BODY, _text(lambda text: decode_object(text.encode()), unit, before=before))
        for before, unit in (
            ('{"a":', "["),
            ('{"a":', '{"a":'),
            ('{"a":"', "\\u0041"),
            ('{"a":', "9"),
            ('{"a":1.', "9"),
            ('{"a":0.', "0"),
            ('{"a":1e-', "9"),
            ('{"a":"', "é"),
            ("{", '"a":1,'),
            ("", " "),
        )
    },
    "unknown names": (_BODY, _body(schemas.ClaimCoupon, lambda n: _claim(**{f"x{i}": 1 for i in range(n // 12)}))),
    "attributes": (
        _BODY,
        _body(schemas.ClaimCoupon, lambda n: _claim(attributes={f"{i:x}": None for i in range(n // 12)})),
    ),
    "metadata": (_BODY, _body(CreateCoupon, lambda n: _coupon(metadata={f"{i:x}": [] for i in range(n // 10)}))),
    "good metadata": (_BODY, _body(CreateCoupon, lambda n: _coupon(metadata={f"{i:x}": 1 for i in range(n // 10)}))),
    "benefit": (_BODY, _body(CreateCoupon, lambda n: _coupon(benefit={f"x{i}": 1 for i in range(n // 12)}))),
    "coupons of a rule": (_BODY, _body(CreateCoupon, lambda n: _coupon(rules={"holds": [".."] * (n // 6)}))),
    "rules": (_BODY, _body(CreateCoupon, lambda n: _coupon(rules={"attributes": [{}] * (n // 4)}))),
    "names of a rule": (
        _BODY,
        _body(CreateCoupon, lambda n: _coupon(rules={"attributes": [{f"x{i}": 1 for i in range(n // 12)}]})),
    ),
    "values of a rule": (
        _BODY,
        _body(CreateCoupon, lambda n: _coupon(rules={"attributes": [{"name": "a", "one_of": [[]] * (n // 4)}]})),
    ),
}


@pytest.mark.parametrize("name", PARSERS)
def test_twice_the_input_costs_no_more_than_twice_as_much(name: str) -> None:
    longest, action = PARSERS[name]
    assert growth(action(longest // 2), action(longest)) < _MOST_GROWTH


@pytest.mark.parametrize(
    "name",
    [
        *("unknown names", "attributes", "metadata", "benefit", "coupons of a rule", "rules"),
        *("names of a rule", "values of a rule"),
    ],
)
def test_a_body_of_thousands_of_errors_is_refused_at_the_first(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """pydantic's errors are counted, because times differ between machines."""
    described = []

    def counted(error: ValidationError, *rest: Any) -> RefusedError:
        described.append(error.error_count())
        return body_refused(error, *rest)

    monkeypatch.setattr(bodies, "body_refused", counted)
    longest, action = PARSERS[name]
    refused = action(longest)
    with pytest.raises(RefusedError) as found:
        refused()
    assert 1 <= len(found.value.errors) <= 20
    assert sum(described) <= 100


# Every header of a request that a service, or a library below it, may parse.
_HEADERS = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Baggage", "Cache-Control", "Connection"),
    *("Content-Disposition", "Content-Encoding", "Content-Type", "Cookie", "Date", "Expect", "Forwarded", "Host"),
    *("Idempotency-Key", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Keep-Alive", "Origin"),
    *("Prefer", "Range", "TE", "Trailer", "Upgrade", "User-Agent", "Via", "X-Forwarded-For", "X-Request-ID"),
    *("traceparent", "tracestate"),
)
_FILLERS = (";", "(", '"', "\\", ",", "a=b; ", "x-y,", "[", "%41", ".", '"\\', "bytes=0-,")
_TARGETS: dict[str, Callable[[int], str]] = {
    "query of names": lambda n: "/api/coupons?" + "".join(f"{i:x}&" for i in range(n // 5)),
    "query of separators": lambda n: "/api/coupons?" + "&=" * (n // 2),
    "query of a cursor": lambda n: "/api/coupons?cursor=" + "2e" * (n // 2),
    "query of escapes": lambda n: "/api/coupons?search=" + "%25" * (n // 3),
    "path of dots": lambda n: "/api/coupons/" + "." * n,
    "path of slashes": lambda n: "/api/coupons/" + "/" * n,
    "path of parts": lambda n: "/" + "a/.." * (n // 4),
    "path of combining marks": lambda n: "/api/codes/" + "%CC%81%CC%A3" * (n // 12),
}


class Asked:
    """A service with tokens, and the CPU time that a request takes it and the client together."""

    def __init__(self, port: int, credential: dict[str, str]) -> None:
        self._port = port
        self._credential = credential

    async def seconds(self, data: bytes) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        started = time.process_time()
        writer.write(data)
        # Not until the connection ends: a header under test may say that it stays open.
        await reader.readline()
        took = time.process_time() - started
        writer.close()
        return took

    async def growth(self, half: bytes, whole: bytes) -> float:
        """As `growth`, with requests for actions; what is quick the first time is not sent again."""
        least = whole_least = math.inf
        # A collection goes through all objects of the tests, and takes longer than any request.
        with _without_collections():
            for tries in range(1, _MOST_TRIES + 1):
                whole_least = min(whole_least, await self.seconds(whole))
                if whole_least < _QUICK_SECONDS:
                    return 0.0
                least = min(least, await self.seconds(half))
                is_slow = tries >= _SLOW_TRIES and whole_least > _SLOW_SECONDS
                if is_slow or (tries >= _TRIES and whole_least < _MOST_GROWTH * least):
                    break
        return whole_least / least

    def requests(self, name: str, value: str) -> Iterator[bytes]:
        """Requests with a header: one that claims, one that uploads, and one that reads a page."""
        header = {name: value}
        claim = {**self._credential, "Connection": "close", **header}
        yield request("POST", "/api/coupons/claim", b'{"coupon_name": "plenty"}', **claim)
        upload = {**ADMIN, "Connection": "close", "Content-Type": "text/csv", **header}
        yield request("PUT", "/api/coupons/plenty/allow-list", b"user_id\nann\n", **upload)
        yield request("GET", "/problems/sold-out", None, **{"Connection": "close", **header})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def keys(tmp_path: Path, issuer: Issuer) -> str:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [issuer.public()]}), encoding="utf-8")
    return str(path)


@asynccontextmanager
async def _asked(issuer: Issuer, keys: str) -> AsyncIterator[Asked]:
    store = MemoryStore()
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    async with open_tokens(keys, issuer=ISSUER, audience=AUDIENCE) as tokens:
        tracer = RequestTracer(NoOpTracer(), 1000)
        services = memory_services(store, Observations(), tokens=tokens, trusted_proxies=_TRUSTED, tracer=tracer)
        async with served(create_app(services)) as port:
            yield Asked(port, bearer(issuer.token("ann")))


async def test_no_header_costs_more_than_its_length(issuer: Issuer, keys: str) -> None:
    wrong = []
    async with _asked(issuer, keys) as asked:
        for name in _HEADERS:
            for filler in _FILLERS:
                before = {"Content-Type": "application/json", "Authorization": "Bearer "}.get(name, "")
                halves, wholes = (
                    asked.requests(name, before + filler * (size // len(filler))) for size in (_LINE // 2, _LINE)
                )
                for half, whole in zip(halves, wholes, strict=True):
                    found = await asked.growth(half, whole)
                    if found >= _MOST_GROWTH:
                        wrong.append((name, filler, whole[:40], found))
    assert wrong == []


async def test_no_target_costs_more_than_its_length(issuer: Issuer, keys: str) -> None:
    wrong = []
    async with _asked(issuer, keys) as asked:
        for name, make in _TARGETS.items():
            half, whole = (
                request("GET", make(size), None, Connection="close", **ADMIN) for size in (_LINE // 2, _LINE)
            )
            found = await asked.growth(half, whole)
            if found >= _MOST_GROWTH:
                wrong.append((name, found))
    assert wrong == []
