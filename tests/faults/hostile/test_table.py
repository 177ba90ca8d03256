"""Every bad input is answered with its problem, told to the log once, writes nothing, and misleads nobody after it."""

import json
from datetime import datetime
from typing import Any

import pytest

from tests.faults.hostile.case import Case
from tests.faults.hostile.conftest import Serve, Victim
from tests.faults.hostile.table import CASES
from tests.support.admin import ADMIN
from tests.support.raw_http import Answer, connected, request
from tests.support.waiting import until

pytestmark = pytest.mark.slow

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


EXTREMES = {
    "times": {"starts_at": "0001-01-01T00:00:00Z", "ends_at": "9999-12-31T23:59:59.999999Z"},
    "zones": {"starts_at": "0001-01-01T23:59:00+23:59", "ends_at": "9999-12-31T00:00:00-23:59"},
    "lower case": {"starts_at": "2026-01-01t00:00:00z", "ends_at": "2026-01-01 00:00:00.5Z"},
    "numbers": {"metadata": {"most": 2**53 - 1, "least": -(2**53) + 1, "small": 5e-324, "zero": -0.0}},
    "texts": {"metadata": {"": "", "\U0001f600": "\u202e\x1b[2J\x7f"}, "benefit": {"text": "'; -- \ufffe"}},
    "money": {"benefit": {"amount_off": 2**53 - 1, "currency": "KRW"}},
    "little": {"benefit": {"percent_off": 5e-324}},
    "all taken away": {"starts_at": None, "ends_at": None, "type": None, "benefit": None, "metadata": {}},
}


@pytest.mark.parametrize("change", EXTREMES.values(), ids=EXTREMES.keys())
async def test_the_most_extreme_rules_that_are_taken_can_be_read_again(serve: Serve, change: dict[str, Any]) -> None:
    """By whoever looks the coupon up, and by its claims, which must not fail for what is written there."""
    victim = serve()
    # As far from UTC as servers are, for connections that are made from now on.
    name = victim.database.info.dbname
    victim.database.execute(f"ALTER DATABASE {name} SET timezone = 'Pacific/Kiritimati'".encode())
    victim.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    body = json.dumps({"paused": True, **change}).encode()
    answers = []

    async def is_changed() -> bool:
        answers.append(await victim.ask("PATCH", "/api/coupons/plenty", body, **ADMIN))
        return answers[-1].status == 200

    await until(is_changed, "it is changed, over a new connection")
    changed = answers[-1]
    shown = await victim.ask("GET", "/api/coupons/plenty")
    assert shown.status == 200
    for name, value in change.items():
        if name not in ("starts_at", "ends_at"):
            assert json.loads(shown.body)[name] == value == json.loads(changed.body)[name]
        elif value is not None:
            assert datetime.fromisoformat(json.loads(shown.body)[name]) == datetime.fromisoformat(value.upper())
    claimed = await victim.ask("POST", "/api/coupons/claim", _CLAIM % b"ann")
    assert claimed.problem["type"] in ("/problems/paused", "/problems/ended")
