"""What the client sends, when it sends it again, and when it gives up."""

import asyncio
import random
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.client import WITHOUT_TYPE, ClaimClient, Claimed, CouponCreated, Retries, SoldOut, UnavailableError
from claimsvc.client.errors import UnexpectedAnswerError
from claimsvc.client.retries import advised_seconds
from tests.client.scripted import CLAIM, COUPON, Say, cuts, refuses, says, scripted
from tests.support.waiting import until

_EAGER = Retries(first_pause_seconds=0.001, longest_pause_seconds=0.002)
_CLAIMED = says(201, CLAIM)


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=201, headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"id":')
    return await cuts(request)


async def status_502(_: web.Request) -> web.StreamResponse:
    return web.Response(status=502, text="<html>Bad Gateway")


async def test_a_claim_is_sent_with_who_asks_and_what_makes_it_the_same_as_another() -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url, token="secret") as client:
        await client.claim(user_id="ada", coupon_name="spring")
        await client.claim(user_id="ada", coupon_name="spring", hold_seconds=60, key="mine", request_id="r-9")
    first, second = service.asked
    assert (first.method, first.path, first.headers["Authorization"]) == ("POST", "/api/coupons/claim", "Bearer secret")
    assert first.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', first.headers["Idempotency-Key"])
    assert first.json() == {"user_id": "ada", "coupon_name": "spring"}
    assert (second.headers["Idempotency-Key"], second.headers["X-Request-ID"]) == ('"mine"', "r-9")
    assert second.json() == {"user_id": "ada", "coupon_name": "spring", "hold_seconds": 60}


async def test_a_claim_names_a_coupon_or_a_type_and_null_is_the_type_of_none() -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url) as client:
        await client.claim(user_id="ada", coupon_type="welcome")
        await client.claim(user_id="ada", coupon_type=WITHOUT_TYPE)
        for coupon_name, coupon_type in ((None, None), ("spring", "welcome"), ("spring", WITHOUT_TYPE)):
            with pytest.raises(ValueError, match="either coupon_name"):
                await client.claim(user_id="ada", coupon_name=coupon_name, coupon_type=coupon_type)
    assert [asked.json() for asked in service.asked] == [
        {"user_id": "ada", "type": "welcome"},
        {"user_id": "ada", "type": None},
    ]


async def test_a_claim_whose_arguments_could_be_swapped_is_an_error_at_once() -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url) as client:
        untyped: Any = client
        for unnamed, named in (
            (("spring", "ada"), {}),
            (("ada",), {"coupon_name": "spring"}),
            ((None, "ada"), {"coupon_type": "welcome"}),
            ((), {"coupon_name": "spring"}),
            ((), {"user_id": None, "coupon_name": "spring"}),
        ):
            with pytest.raises(TypeError, match=r'claim\(user_id="user-1", coupon_name="summer-sale"\)'):
                await untyped.claim(*unnamed, **named)
        with pytest.raises(TypeError, match="coupon"):
            await untyped.claim(user_id="ada", coupon="spring")
    assert not service.asked


async def test_each_request_has_a_key_and_an_id_of_its_own() -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url) as client:
        await asyncio.gather(*(client.claim(user_id="ada", coupon_name="spring") for _ in range(5)))
    for name in ("Idempotency-Key", "X-Request-ID"):
        assert len({asked.headers[name] for asked in service.asked}) == 5
    assert not any("Authorization" in asked.headers for asked in service.asked)


async def test_confirming_and_cancelling_name_the_claim() -> None:
    async with scripted(says(200, CLAIM)) as service, ClaimClient(service.url) as client:
        await client.confirm("a/b", key="mine")
        await client.cancel("a/b", "by mistake")
    confirmed, cancelled = service.asked
    assert (confirmed.method, confirmed.path, confirmed.body) == ("POST", "/api/claims/a%2Fb/confirm", b"")
    assert confirmed.headers["Idempotency-Key"] == '"mine"'
    assert (cancelled.method, cancelled.path) == ("DELETE", "/api/claims/a%2Fb")
    assert cancelled.json() == {"reason": "by mistake"}
    assert "Idempotency-Key" not in cancelled.headers


async def test_cancelling_without_a_reason_sends_no_body() -> None:
    async with scripted(says(200, CLAIM)) as service, ClaimClient(service.url) as client:
        await client.cancel("a")
    [cancelled] = service.asked
    assert (cancelled.method, cancelled.body) == ("DELETE", b"")
    assert "Content-Type" not in cancelled.headers


async def test_a_coupon_is_created_with_the_rules_that_were_given() -> None:
    starts_at = datetime(2026, 11, 27, 9, tzinfo=UTC)
    async with scripted(says(201, COUPON)) as service, ClaimClient(service.url) as client:
        assert isinstance(await client.create_coupon("spring", 5), CouponCreated)
        await client.create_coupon("spring", 5, strategy="counter", starts_at=starts_at, coupon_type="welcome")
    plain, rich = (asked.json() for asked in service.asked)
    assert plain == {"name": "spring", "amount": 5}
    rules = {"strategy": "counter", "starts_at": "2026-11-27T09:00:00+00:00", "type": "welcome"}
    assert rich == plain | rules
    assert all("Idempotency-Key" in asked.headers for asked in service.asked)


@pytest.mark.parametrize("name", ["..", "a b", "쿠폰", "a?b", "a%2Fb"])
async def test_a_name_stays_one_part_of_the_path(name: str) -> None:
    async with scripted(refuses("unknown-coupon", 404)) as service, ClaimClient(f"{service.url}/below/") as client:
        await client.coupon(name)
    [asked] = service.asked
    assert re.fullmatch(r"/below/api/coupons/[A-Za-z0-9.%]+", asked.path)
    assert asked.path.count("/") == 4


async def test_another_caller_shares_the_connections_but_not_the_token() -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url, token="a") as client:
        await client.claim(user_id="ada", coupon_name="spring")
        await client.with_token("b").claim(user_id="ben", coupon_name="spring")
    first, second = service.asked
    assert (first.headers["Authorization"], second.headers["Authorization"]) == ("Bearer a", "Bearer b")
    assert first.connection is second.connection


@pytest.mark.parametrize("key", ["", 'a"b', "a\\b", "a b", "é", "a" * 256])
async def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(key: str) -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url) as client:
        with pytest.raises(ValueError, match="Idempotency-Key"):
            await client.claim(user_id="ada", coupon_name="spring", key=key)
        assert service.asked == []


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://localhost", "http://u:p@localhost", "http://localhost/?a=b"]
)
def test_a_url_that_is_none_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        ClaimClient(url)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(cuts, id="cut"),
        pytest.param(breaks_off, id="cut in the answer"),
        pytest.param(status_502, id="a proxy's 502"),
        pytest.param(says(504, None), id="a proxy's 504"),
        pytest.param(refuses("request-timeout", 408), id="request-timeout"),
        pytest.param(refuses("quota-exceeded", 429, retry_after="0"), id="quota-exceeded"),
        pytest.param(refuses("lock-busy", 503, retry_after="0"), id="lock-busy"),
        pytest.param(refuses("unavailable", 503), id="unavailable"),
        pytest.param(refuses("key-in-flight", 409, retry_after="0"), id="key-in-flight"),
    ],
)
async def test_a_passing_failure_is_met_by_the_same_request_again(failure: Say) -> None:
    async with scripted(failure, failure, _CLAIMED) as service, ClaimClient(service.url, retries=_EAGER) as client:
        assert isinstance(await client.claim(user_id="ada", coupon_name="spring"), Claimed)
    assert len(service.asked) == 3
    for name in ("Idempotency-Key", "X-Request-ID"):
        assert len({asked.headers[name] for asked in service.asked}) == 1
    assert len({asked.body for asked in service.asked}) == 1


async def test_cancelling_and_reading_are_sent_again_too() -> None:
    async with scripted(cuts) as service, ClaimClient(service.url, retries=_EAGER) as client:
        service.says = [cuts, cuts, says(200, CLAIM)]
        await client.cancel("a", "by mistake")
        service.says = [cuts, cuts, says(200, COUPON)]
        await client.coupon("spring")
        service.says = [cuts, cuts, says(200, {"items": [], "next_cursor": None})]
        assert [claim async for claim in client.claims("spring")] == []


@pytest.mark.parametrize(
    "refusal",
    [
        refuses("sold-out", 409, retry_after="1"),
        refuses("not-started", 409, retry_after="1", starts_at="2026-11-27T00:00:00Z"),
        refuses("paused", 409),
        refuses("unknown-coupon", 404),
        refuses("key-reused", 422),
    ],
)
async def test_a_definite_answer_is_taken_at_its_word(refusal: Say) -> None:
    async with scripted(refusal) as service, ClaimClient(service.url, retries=_EAGER) as client:
        await client.claim(user_id="ada", coupon_name="spring")
    assert len(service.asked) == 1


async def test_the_service_is_given_the_time_that_it_asks_for() -> None:
    async with (
        scripted(refuses("lock-busy", 503, retry_after="1"), _CLAIMED) as service,
        ClaimClient(service.url, retries=_EAGER) as client,
    ):
        started = time.monotonic()
        await client.claim(user_id="ada", coupon_name="spring")
    assert 1.0 <= time.monotonic() - started < 5.0


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    busy = refuses("quota-exceeded", 429, retry_after="60")
    async with scripted(busy) as service, ClaimClient(service.url, deadline_seconds=30.0) as client:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="429 quota-exceeded") as raised:
            await client.claim(user_id="ada", coupon_name="spring", key="mine", request_id="r-9")
    assert time.monotonic() - started < 10.0
    error = raised.value
    assert (error.attempts, error.key, error.request_id, error.retry_after_seconds) == (1, "mine", "r-9", 60.0)
    assert error.problem is not None
    assert error.problem.slug == "quota-exceeded"


async def test_a_service_that_says_nothing_is_given_up_on_at_the_deadline() -> None:
    async with scripted(hangs) as service, ClaimClient(service.url, deadline_seconds=0.3) as client:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="no answer") as raised:
            await client.claim(user_id="ada", coupon_name="spring")
        assert 0.3 <= time.monotonic() - started < 5.0
    assert f'"{raised.value.key}"' == service.asked[0].headers["Idempotency-Key"]
    assert (raised.value.attempts, raised.value.problem) == (1, None)


async def test_an_instance_that_says_nothing_is_not_waited_for_when_another_may_answer() -> None:
    async with (
        scripted(hangs, _CLAIMED) as service,
        ClaimClient(service.url, silence_seconds=0.2, retries=_EAGER) as client,
    ):
        assert isinstance(await client.claim(user_id="ada", coupon_name="spring"), Claimed)
    assert len(service.asked) == 2


async def test_a_service_that_is_not_there_is_tried_as_often_as_is_wanted(unused_tcp_port: int) -> None:
    retries = Retries(first_pause_seconds=0.001, longest_pause_seconds=0.002, most=3)
    async with ClaimClient(f"http://127.0.0.1:{unused_tcp_port}", retries=retries) as client:
        with pytest.raises(UnavailableError) as raised:
            await client.claim(user_id="ada", coupon_name="spring")
    assert raised.value.attempts == 4
    assert isinstance(raised.value.__cause__, OSError)


async def test_a_server_that_speaks_no_http_is_an_error_at_once() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with ClaimClient(f"http://{host}:{port}") as client:
            with pytest.raises(UnexpectedAnswerError, match="HTTP"):
                await client.claim(user_id="ada", coupon_name="spring")


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    async with scripted(endless) as service, ClaimClient(service.url) as client:
        with pytest.raises(UnexpectedAnswerError, match="longer than"):
            await client.coupon("spring")


async def test_many_tasks_share_a_few_connections_and_keep_them() -> None:
    async with scripted(_CLAIMED) as service, ClaimClient(service.url, connections=3) as client:
        for _ in range(2):
            await asyncio.gather(
                *(client.claim(user_id=f"user-{number}", coupon_name="spring") for number in range(30))
            )
    assert len(service.asked) == 60
    assert len({id(asked.connection) for asked in service.asked}) <= 3


async def test_a_redirect_is_not_followed() -> None:
    async with scripted(says(201, CLAIM)) as elsewhere:
        away = says(307, None, Location=f"{elsewhere.url}/api/coupons/claim")
        async with scripted(away) as service, ClaimClient(service.url, token="secret") as client:
            with pytest.raises(UnexpectedAnswerError, match="307"):
                await client.claim(user_id="ada", coupon_name="spring")
        assert elsewhere.asked == []


async def test_a_client_is_closed_once_and_for_all() -> None:
    async with scripted(_CLAIMED) as service:
        client = ClaimClient(service.url)
        await client.close()
        await client.close()
        with pytest.raises(RuntimeError, match="closed"):
            await client.claim(user_id="ada", coupon_name="spring")
        assert service.asked == []


async def test_closing_ends_what_is_under_way() -> None:
    async with scripted(hangs) as service:
        client = ClaimClient(service.url)
        waiting = asyncio.create_task(client.claim(user_id="ada", coupon_name="spring"))
        await until(lambda: service.asked, "the claim is under way")
        await client.close()
        with pytest.raises(RuntimeError, match="closed"):
            await waiting


async def test_a_caller_that_is_cancelled_sends_nothing_again() -> None:
    async with scripted(refuses("lock-busy", 503, retry_after="20")) as service, ClaimClient(service.url) as client:
        waiting = asyncio.create_task(client.claim(user_id="ada", coupon_name="spring"))
        await until(lambda: service.asked, "the claim is under way")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        service.says = [refuses("sold-out", 409)]
        assert isinstance(await client.claim(user_id="ada", coupon_name="spring"), SoldOut)
    assert len(service.asked) == 2


def test_pauses_are_drawn_from_limits_that_double_up_to_the_longest() -> None:
    random.seed(7)
    retries = Retries()
    for retry, limit in [(0, 0.1), (1, 0.2), (2, 0.4), (5, 3.2), (6, 5.0), (7, 5.0), (5000, 5.0)]:
        pauses = [retries.pause_seconds(retry, None) for _ in range(500)]
        assert 0.0 <= min(pauses) < limit * 0.1
        assert limit * 0.9 < max(pauses) <= limit


def test_advice_is_waited_first_and_then_the_pause() -> None:
    random.seed(7)
    pauses = [Retries().pause_seconds(0, 3.0) for _ in range(500)]
    assert 3.0 <= min(pauses) < 3.01
    assert 3.09 < max(pauses) <= 3.1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("3", 3.0), (" 120 ", 120.0), ("0", 0.0), ("soon", None), ("-1", None), ("1.5", None), ("", None)],
)
def test_retry_after_is_read_where_it_says_something(header: str | None, seconds: float | None) -> None:
    assert advised_seconds(header) == seconds


@pytest.mark.parametrize(
    "header",
    [
        *("9" * 400, "1 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2027 00:00:00 +9999999999999999999"),
        *("(" * 8000, "Mon, 32 Jan 2027 00:00:00 GMT", "\u0663", "1" + "0" * 64),
    ],
)
def test_a_retry_after_that_names_no_time_is_none(header: str) -> None:
    assert advised_seconds(header) is None


@given(st.text(max_size=80) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,30} Jan -?\d{1,30} \d+:\d+:\d+ [+-]?\d{1,30}"))
def test_no_retry_after_is_an_error(header: str) -> None:
    seconds = advised_seconds(header)
    assert seconds is None or 0 <= seconds < float("inf")


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    soon = advised_seconds(format_datetime(now + timedelta(seconds=60), usegmt=True))
    assert soon is not None
    assert 50.0 < soon <= 60.0
    assert advised_seconds(format_datetime(now - timedelta(seconds=60), usegmt=True)) == 0.0
