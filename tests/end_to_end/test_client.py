"""`claimsvc.client` against the whole service: a claim's life, its retries, and the documentation's example."""

import asyncio
import os
import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest
from redis.asyncio import Redis

from claimsvc.client import (
    WITHOUT_TYPE,
    AlreadyClaimed,
    BadRequestError,
    Cancelled,
    ClaimCancelled,
    ClaimClient,
    Claimed,
    Confirmed,
    Coupon,
    CouponCreated,
    CouponExists,
    Ended,
    HoldContinued,
    HoldExpired,
    KeyReused,
    NotEligible,
    NotStarted,
    Paused,
    Refused,
    SoldOut,
    UnauthorizedError,
    UnknownClaim,
    UnknownCoupon,
    UnknownCouponError,
)
from claimsvc.domain import StrategyName
from tests.end_to_end.conftest import Connect, OpenService, metric
from tests.support.admin import ADMIN_KEY
from tests.support.proxy import Proxy, listening, proxy_to
from tests.support.waiting import until

_PAGE = Path(__file__).parent.parent.parent / "docs" / "client.md"
_EXCLUDED = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def client(open_service: OpenService, connect: Connect) -> ClaimClient:
    return connect(await open_service())


async def claimed(client: ClaimClient, user: str, hold_seconds: int | None = None) -> str:
    outcome = await client.claim(user_id=user, coupon_name="spring", hold_seconds=hold_seconds)
    assert isinstance(outcome, Claimed)
    return outcome.claim.id


async def test_a_unit_is_held_confirmed_given_back_and_claimed_again(client: ClaimClient) -> None:
    await client.create_coupon("spring", 1)
    held = await client.claim(user_id="ada", coupon_name="spring", hold_seconds=60)
    assert isinstance(held, Claimed)
    assert (held.claim.state, held.claim.user_id, held.claim.coupon_name) == ("held", "ada", "spring")
    assert held.claim.expires_at == held.claim.claimed_at + timedelta(seconds=60)
    assert await client.claim(user_id="ada", coupon_name="spring", hold_seconds=60) == HoldContinued(held.claim)
    assert await client.claim(user_id="ben", coupon_name="spring") == SoldOut()

    confirmed = await client.confirm(held.claim.id)
    assert isinstance(confirmed, Confirmed)
    assert (confirmed.claim.state, confirmed.claim.expires_at) == ("active", None)
    assert await client.confirm(held.claim.id) == confirmed
    assert await client.claim(user_id="ada", coupon_name="spring") == AlreadyClaimed(confirmed.claim)

    cancelled = await client.cancel(held.claim.id, "bought something else")
    assert isinstance(cancelled, Cancelled)
    assert cancelled.claim.state == "cancelled"
    assert cancelled.claim.ended_at is not None
    assert await client.cancel(held.claim.id, "bought something else") == cancelled
    assert await client.claim_by_id(held.claim.id) == cancelled.claim
    assert await client.confirm(held.claim.id) == ClaimCancelled(cancelled.claim)
    assert await claimed(client, "ada") != held.claim.id


async def test_a_hold_that_is_over_is_not_confirmed(client: ClaimClient, database_url: str) -> None:
    await client.create_coupon("spring", 1)
    held = await claimed(client, "ada", hold_seconds=60)
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        connection.execute("UPDATE user_claims SET held_until = now() - interval '1 second'")
    expired = await client.confirm(held)
    assert isinstance(expired, HoldExpired)
    assert expired.claim.state == "expired"
    assert await client.cancel(held, "too late") == expired
    await claimed(client, "ben")


async def test_the_rules_of_a_coupon_are_told_and_obeyed(client: ClaimClient) -> None:
    now = datetime.now(UTC)
    begins, ended = now + timedelta(hours=1), now - timedelta(hours=1)
    made = await client.create_coupon(
        *("spring", 5),
        strategy="counter",
        starts_at=begins,
        ends_at=begins + timedelta(days=1),
        per_user_limit=2,
        coupon_type="welcome",
        benefit={"amount_off": 5000, "currency": "KRW"},
        metadata={"channel": "app"},
    )
    assert isinstance(made, CouponCreated)
    assert await client.coupon("spring") == made.coupon
    assert (made.coupon.starts_at, made.coupon.ends_at) == (begins, begins + timedelta(days=1))
    assert (made.coupon.strategy, made.coupon.per_user_limit, made.coupon.type) == ("counter", 2, "welcome")
    assert made.coupon.benefit == {"amount_off": 5000, "currency": "KRW"}
    assert made.coupon.metadata == {"channel": "app"}
    assert await client.create_coupon("spring", 6) == CouponExists()

    early = await client.claim(user_id="ada", coupon_name="spring")
    assert isinstance(early, NotStarted)
    assert early.starts_at == begins
    assert early.retry_after_seconds is not None
    assert 3000 < early.retry_after_seconds <= 3600
    await client.create_coupon("over", 5, ends_at=ended)
    assert await client.claim(user_id="ada", coupon_name="over") == Ended()
    await client.create_coupon("paused", 5, paused=True)
    assert await client.claim(user_id="ada", coupon_name="paused") == Paused()
    never = await client.create_coupon("never", 5, starts_at=begins, ends_at=ended)
    assert isinstance(never, Refused)
    assert never.problem.slug == "empty-period"


async def test_attributes_and_types_are_claimed_by(client: ClaimClient) -> None:
    rules = {"attributes": [{"name": "city", "one_of": ["Seoul"]}]}
    await client.create_coupon("local", 5, coupon_type="welcome", rules=rules)
    refused = await client.claim(user_id="ada", coupon_name="local", attributes={"city": "Busan"})
    assert isinstance(refused, NotEligible)
    assert [reason["code"] for reason in refused.reasons] == ["attribute-refused"]
    claimed = await client.claim(user_id="ada", coupon_type="welcome", attributes={"city": "Seoul"})
    assert isinstance(claimed, Claimed)
    assert (claimed.claim.coupon_name, claimed.claim.code) == ("local", None)
    await client.create_coupon("typeless", 5)
    other = await client.claim(user_id="bob", coupon_type=WITHOUT_TYPE)
    assert isinstance(other, Claimed)
    assert other.claim.coupon_name != "local"


async def test_what_is_not_there_or_not_allowed_is_said(client: ClaimClient) -> None:
    assert await client.claim(user_id="ada", coupon_name="winter") == UnknownCoupon()
    assert await client.coupon("winter") == UnknownCoupon()
    assert await client.claim_by_id(_EXCLUDED) == UnknownClaim()
    assert await client.confirm(_EXCLUDED) == UnknownClaim()
    assert await client.cancel(_EXCLUDED, "by mistake") == UnknownClaim()
    with pytest.raises(UnknownCouponError):
        await anext(client.claims("winter"))
    with pytest.raises(BadRequestError) as raised:
        await client.claim(user_id="a user", coupon_name="spring")
    assert raised.value.problem.document["errors"][0]["pointer"] == "#/user_id"
    for token in (None, "not the key"):
        with pytest.raises(UnauthorizedError):
            await client.with_token(token).create_coupon("spring", 1)


async def test_all_claims_are_listed_in_their_order(client: ClaimClient) -> None:
    await client.create_coupon("spring", 10)
    made = [await claimed(client, f"user-{number}") for number in range(5)]
    for page_size in (2, 5, 100):
        assert [claim.id async for claim in client.claims("spring", page_size=page_size)] == made


async def test_the_same_claim_under_one_key_has_one_answer_from_every_instance(
    open_service: OpenService, connect: Connect
) -> None:
    """One of the instances is started when the answer has been given: it knows it from the database alone."""
    clients = [connect(await open_service()) for _ in range(2)]
    await clients[0].create_coupon("spring", 10)
    outcomes = await asyncio.gather(
        *(clients[n % 2].claim(user_id="ada", coupon_name="spring", key="mine") for n in range(50))
    )
    first = [each for each in outcomes if not each.replayed]
    assert len(first) == 1
    assert isinstance(first[0], Claimed)
    assert outcomes == first * 50

    late = connect(await open_service())
    again = await late.claim(user_id="ada", coupon_name="spring", key="mine", request_id="the-last")
    assert (again, again.replayed, again.request_id) == (first[0], True, "the-last")
    assert await late.claim(user_id="ben", coupon_name="spring", key="mine") == KeyReused()
    coupon = await late.coupon("spring")
    assert isinstance(coupon, Coupon)
    assert coupon.remaining_amount == 9


@pytest.mark.parametrize("strategy", StrategyName)
async def test_claims_whose_answers_are_lost_are_made_once_and_answered_as_if_nothing_had_been(
    open_service: OpenService, connect: Connect, strategy: StrategyName
) -> None:
    """Without its key, a claim that is sent again would be told that it was made before."""
    url = await open_service()
    await connect(url).create_coupon("spring", 20, strategy=strategy)
    proxies: list[Proxy] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy = Proxy(str(urlsplit(url).hostname), urlsplit(url).port or 0)
        if len(proxies) < 15:
            proxy.cut_after(b"POST /api/coupons/claim")
        proxies.append(proxy)
        await proxy.converse(reader, writer)

    async with listening(converse) as port, ClaimClient(f"http://127.0.0.1:{port}") as client:
        users = [f"user-{number}" for number in range(60)]
        answers = await asyncio.gather(*(client.claim(user_id=user, coupon_name="spring") for user in users))
        coupon = await client.coupon("spring")
    outcomes = dict(zip(users, answers, strict=True))
    assert sum(proxy.cuts for proxy in proxies) == 15
    assert Counter(type(each) for each in answers) == {Claimed: 20, SoldOut: 40}
    assert sum(each.replayed for each in answers) == 15
    assert isinstance(coupon, Coupon)
    assert coupon.remaining_amount == 0
    assert set(coupon.claimed_by) == {user for user, each in outcomes.items() if isinstance(each, Claimed)}


async def test_whatever_else_loses_its_answer_is_done_once_and_answered_all_the_same(open_service: OpenService) -> None:
    url = urlsplit(await open_service())
    async with proxy_to(str(url.hostname), url.port or 0) as proxy:
        client = ClaimClient(f"http://127.0.0.1:{proxy.port}", token=ADMIN_KEY)
        proxy.cut_after(b"POST /api/coupons")
        made = await client.create_coupon("spring", 1)
        assert isinstance(made, CouponCreated)
        held = await claimed(client, "ada", hold_seconds=60)
        proxy.cut_after(b"POST /api/claims")
        confirmed = await client.confirm(held)
        assert isinstance(confirmed, Confirmed)
        proxy.cut_after(b"DELETE /api/claims")
        assert isinstance(await client.cancel(held, "by mistake"), Cancelled)
        assert proxy.cuts == 3
        assert await client.coupon("spring") == made.coupon
        await client.close()
    assert made.replayed
    assert confirmed.replayed


async def test_a_coupon_that_is_busy_is_asked_for_until_it_is_free(
    open_service: OpenService,
    connect: Connect,
    session: aiohttp.ClientSession,
    database_url: str,
    redis_urls: tuple[str, ...],
) -> None:
    here, there = await open_service(combining="off"), await open_service(combining="off")
    await connect(here).create_coupon("spring", 5)
    async with Redis.from_url(redis_urls[0]) as master:
        with psycopg.connect(database_url.replace("+psycopg", "")) as obstacle:
            obstacle.execute("SELECT FROM coupons FOR UPDATE")
            ada = asyncio.create_task(connect(here).claim(user_id="ada", coupon_name="spring"))
            await until(lambda: master.exists("claim:coupon:spring"), "the coupon is locked")
            ben = asyncio.create_task(connect(there).claim(user_id="ben", coupon_name="spring"))
            busy = 'claimsvc_lock_wait_seconds_count{coupon="*",result="busy"}'
            await until(lambda: metric(session, there, busy), "it was busy for the other")
    assert [type(each) for each in await asyncio.gather(ada, ben)] == [Claimed, Claimed]


async def test_the_example_of_the_documentation_gives_each_unit_to_somebody(open_service: OpenService) -> None:
    example = re.search(r"^```python\n(.*?)^```$", _PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert example
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example[1]),
        env={**os.environ, "URL": await open_service(), "CLAIMSVC_ADMIN_KEY": ADMIN_KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    assert program.returncode == 0, said.decode()
    lines = said.decode().splitlines()
    assert len({re.fullmatch(r"(user-\d+) has [0-9a-f-]{36}", line)[1] for line in lines}) == len(lines) == 5  # type: ignore[index]
