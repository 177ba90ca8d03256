"""What anybody can have stored under idempotency keys is bounded, unless it used up something of a limited stock."""

from functools import partial
from typing import Any

import aiohttp
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import Claimed, ClaimOutcome, Queued, SoldOut, UnknownCoupon
from claimsvc.domain.outcomes import is_stored, is_stored_for_nothing, rows
from claimsvc.http import app as app_module
from claimsvc.http.framework.stored_answers import StoredAnswers
from tests.support.admin import ADMIN

_FEW = 3


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller may have few answers stored that used nothing up, and waits long for another."""
    monkeypatch.setattr(app_module, "StoredAnswers", partial(StoredAnswers, at_once=_FEW, seconds_each=3600.0))


@given(
    at_once=st.integers(1, 5),
    seconds_each=st.integers(1, 10),
    waits=st.lists(st.integers(0, 30), max_size=60),
)
def test_no_caller_has_more_stored_than_its_share_and_what_grew_again(
    at_once: int, seconds_each: int, waits: list[int]
) -> None:
    now = 0.0
    answers = StoredAnswers(at_once, seconds_each, clock=lambda: now)
    stored: list[float] = []
    for wait in waits:
        now += wait
        if answers.may_store("eve"):
            answers.stored("eve")
            stored.append(now)
        # The whole share is there again after all that was not used.
        assert answers.may_store("ada")
    for first, since in enumerate(stored):
        for count, until in enumerate(stored[first:], 1):
            assert count <= at_once + (until - since) / seconds_each


def test_what_is_remembered_of_callers_is_bounded_and_strangers_then_have_nothing_stored() -> None:
    now = 0.0
    answers = StoredAnswers(2, 10.0, callers=2, clock=lambda: now)
    for caller in ("ada", "ben"):
        answers.stored(caller)
    assert not answers.may_store("eve")
    assert answers.may_store("ada")
    now = 10.0
    assert answers.may_store("eve")


def test_of_the_outcomes_of_claiming_only_a_unit_and_a_place_in_a_queue_are_used_up() -> None:
    for kind, row in rows(ClaimOutcome):
        assert row.uses_up is (kind in (Claimed, Queued))


class Asked:
    """The whole service, asked under keys of their own unless one is given."""

    def __init__(self, url: str, database_url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.database_url, self.session = url, database_url, session
        self.keys = 0

    async def post(self, path: str, body: Any, key: str = "", **headers: str) -> tuple[int, str, bool]:
        self.keys += 1
        headers |= {"Idempotency-Key": key or f"k-{self.keys}"}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            found = await answer.json(content_type=None)
            kind = str(found.get("type", found.get("id", ""))).removeprefix("/problems/")
            return answer.status, kind, "Idempotency-Replayed" in answer.headers

    async def claim(self, user: str, coupon: str, key: str = "", **more: Any) -> tuple[int, str, bool]:
        return await self.post("/api/coupons/claim", {"user_id": user, "coupon_name": coupon, **more}, key)

    async def offer(self, name: str, amount: int, **more: Any) -> None:
        async with self.session.post(
            f"{self.url}/api/coupons", json={"name": name, "amount": amount, **more}, headers=ADMIN
        ) as answer:
            assert answer.status == 201

    def stored(self) -> list[str]:
        with psycopg.connect(self.database_url.replace("+psycopg", "")) as connection:
            rows = connection.execute("SELECT answer ->> 'kind' FROM idempotent_answers ORDER BY kept_at").fetchall()
        return [kind for (kind,) in rows]


async def test_what_is_not_there_is_not_stored_and_the_key_is_good_once_it_is(
    service_url: str, database_url: str
) -> None:
    async with aiohttp.ClientSession() as session:
        asked = Asked(service_url, database_url, session)
        for number in range(5):
            assert (await asked.claim("ada", f"made-up-{number}"))[:2] == (404, "unknown-coupon")
        assert (await asked.post("/api/coupons/claim", {"user_id": "ada", "type": "made-up"}))[0] == 404
        assert (await asked.post("/api/coupons/made-up/eligibility", {"user_id": "ada"}))[0] == 404
        unknown = "0198c0de-0000-7000-8000-000000000000"
        assert (await asked.post(f"/api/claims/{unknown}/confirm", None))[:2] == (404, "unknown-claim")
        assert (await asked.claim("ada", "spring", "mine"))[0] == 404
        assert asked.stored() == []
        await asked.offer("spring", 1)
        made = await asked.claim("ada", "spring", "mine")
        assert (made[0], made[2]) == (201, False)
        assert await asked.claim("ada", "spring", "mine") == (201, made[1], True)
        assert asked.stored() == ["claimed"]


async def test_beyond_its_share_a_caller_is_answered_and_nothing_is_stored_but_its_claims(
    few: None, service_url: str, database_url: str
) -> None:
    async with aiohttp.ClientSession() as session:
        asked = Asked(service_url, database_url, session)
        await asked.offer("gone", 1)
        await asked.offer("mine", 5, rules={"attributes": [{"name": "vip", "one_of": [True]}]})
        await asked.offer("plenty", 50)
        first = await asked.claim("ada", "gone", "first")
        assert first[0] == 201
        free = [
            await asked.claim("eve", "gone"),
            await asked.claim("eve", "mine", "told-again"),
            await asked.post("/api/coupons/mine/eligibility", {"user_id": "eve"}),
            await asked.claim("ben", "gone", "decided-anew"),
            await asked.claim("ada", "gone"),
            await asked.post("/api/coupons/mine/eligibility", {"user_id": "ben"}),
            await asked.post(f"/api/claims/{first[1]}/confirm", None),
        ]
        assert [status for status, _, _ in free] == [409, 403, 200, 409, 409, 200, 200]
        assert asked.stored() == ["claimed", "sold-out", "not-eligible", "eligibility"]
        assert await asked.claim("eve", "mine", "told-again") == (403, "not-eligible", True)
        assert await asked.claim("ben", "gone", "decided-anew") == (409, "sold-out", False)
        # Claims are stored: a retry must not make a second one.
        for user in ("u-1", "u-2"):
            made = await asked.claim(user, "plenty", user)
            assert await asked.claim(user, "plenty", user) == (201, made[1], True)
        # Keys of operators have no bound.
        for number in range(_FEW + 1):
            document = {"name": "gone", "amount": 5}
            assert (await asked.post("/api/coupons", document, f"op-{number}", **ADMIN))[1] == "coupon-exists"
            assert (await asked.post("/api/coupons", document, f"op-{number}", **ADMIN))[2]


async def test_within_its_share_all_is_told_again(service_url: str, database_url: str) -> None:
    async with aiohttp.ClientSession() as session:
        asked = Asked(service_url, database_url, session)
        await asked.offer("gone", 1)
        await asked.claim("ada", "gone")
        for number in range(20):
            assert await asked.claim(f"u-{number}", "gone", f"r-{number}") == (409, "sold-out", False)
            assert await asked.claim(f"u-{number}", "gone", f"r-{number}") == (409, "sold-out", True)


def test_what_may_be_stored_for_nothing_is_what_is_stored_and_uses_nothing_up() -> None:
    assert is_stored_for_nothing(SoldOut())
    assert not is_stored(SoldOut(), keeps_all=False)
    assert not is_stored(UnknownCoupon())
