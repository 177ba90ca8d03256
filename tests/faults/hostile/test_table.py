"""Every bad input is answered with its problem, told to the log once, writes nothing, and misleads nobody after it."""

import json

import pytest

from tests.faults.hostile.case import Case
from tests.faults.hostile.conftest import Victim
from tests.faults.hostile.table import CASES
from tests.faults.hostile.wire import Answer, connected, request

_LEAKS = ("Traceback", 'File "', "psycopg", "SELECT", "Error(", "Exception", "aiohttp", "pydantic", "postgres", "redis")
_CANARY = request("GET", "/api/coupons/canary", X_Request_ID="canary", Connection="close")


def check_problem(case: Case, answer: Answer) -> None:
    assert (answer.status, answer.problem.get("type")) == (case.status, f"/problems/{case.slug}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.problem["request_id"] != "canary"
    assert answer.problem["status"] == case.status
    assert answer.problem["title"]
    if case.place is not None:
        named = {error.get("pointer", error.get("parameter")) for error in answer.problem["errors"]}
        assert named == {case.place}
    if case.status == 405:
        assert answer.headers["allow"]
    if case.status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    text = json.dumps([answer.problem, answer.headers])
    assert len(text) < 5000
    assert not [leak for leak in _LEAKS if leak in text]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_bad_input_is_refused_and_harms_nothing(victim: Victim, case: Case) -> None:
    """A good request follows at once over the same connection: it is answered as itself, or not at all."""
    before = victim.stored()
    async with connected(victim.port) as wire:
        await wire.send(case.data + (b"" if case.slug == "request-timeout" else _CANARY))
        first, *others = await wire.answers()
    check_problem(case, first)
    lines = await victim.new_lines()
    assert [line["event"] for line in lines] == ["request"] * len(lines)
    assert lines[0]["status"] == case.status
    assert lines[0]["request_id"] == first.problem["request_id"]
    assert "exception" not in lines[0]
    if case.ends:
        assert (others, len(lines)) == ([], 1)
        assert first.headers["connection"] == "close"
    else:
        assert [answer.problem["type"] for answer in others] == ["/problems/unknown-coupon"]
        assert [line["request_id"] for line in lines[1:]] == ["canary"]
    assert victim.stored() == before


_CHUNKED = (
    b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_CLAIM = b'{"user_id": "%b", "coupon_name": "plenty"}'
UNUSUAL = {
    "absolute target": request("GET", "http://elsewhere/livez"),
    "empty Host": b"GET /livez HTTP/1.1\r\nHost: \r\n\r\n",
    "line break before the request": b"\r\n" + request(),
    "escaped letters": request("GET", "/%6civez"),
    "bytes beyond ASCII in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nA: \xff\xfe\r\n\r\n",
    "fragment": request("GET", "/livez#fragment"),
    "body that nobody asked for": request("GET", "/livez", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL.keys())
async def test_what_is_unusual_and_right_is_answered_and_so_is_what_follows(victim: Victim, data: bytes) -> None:
    async with connected(victim.port) as wire:
        await wire.send(data + _CANARY)
        assert [answer.status for answer in await wire.answers()] == [200, 404]
    assert [line["status"] for line in await victim.new_lines()] == [200, 404]


@pytest.mark.parametrize(
    ("user", "size", "end"),
    [(b"extension", b'20;name="a;b"', b""), (b"trailer", b"20", b"X-Sum: 5\r\n"), (b"zeros", b"000020", b"")],
    ids=["extension", "trailer", "zeros before a size"],
)
async def test_chunks_in_every_lawful_form_are_one_body(victim: Victim, user: bytes, size: bytes, end: bytes) -> None:
    claim = _CLAIM % user
    chunks = size + b"\r\n" + claim[:0x20] + b"\r\n%x\r\n" % len(claim[0x20:]) + claim[0x20:] + b"\r\n"
    async with connected(victim.port) as wire:
        await wire.send(_CHUNKED + chunks + b"0\r\n" + end + b"\r\n" + _CANARY)
        assert [answer.status for answer in await wire.answers()] == [201, 404]
