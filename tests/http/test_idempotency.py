"""Claims under an Idempotency-Key, on the whole service: done once, and told again as they were."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import psycopg
import pytest
from multidict import CIMultiDict

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.domain import StrategyName
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.serving import served
from tests.support.waiting import quickest, until

_PATIENT = {
    "database_lock_timeout_seconds": 30.0,
    "database_statement_timeout_seconds": 30.0,
    "claim_queue_timeout_seconds": 30.0,
    "claim_timeout_seconds": 60.0,
}


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; `body` as it was sent, byte for byte."""

    status: int
    body: bytes
    location: str | None
    replayed: str | None
    retry_after: str | None

    @property
    def type(self) -> str:
        return str(json.loads(self.body).get("type", "")).removeprefix("/problems/")

    @property
    def essence(self) -> tuple[int, bytes, str | None]:
        """What has to be the same in each repetition."""
        return self.status, self.body, self.location


class Instances:
    """Instances of the service, all on the same databases."""

    def __init__(self, urls: Sequence[str], session: aiohttp.ClientSession) -> None:
        self.urls = urls
        self.session = session

    async def post(self, path: str, body: Any, *keys: str, instance: int = 0, **more: str) -> Told:
        headers: CIMultiDict[str] = CIMultiDict({**ADMIN, **more})
        for key in keys:
            headers.add("Idempotency-Key", key)
        async with self.session.post(self.urls[instance] + path, json=body, headers=headers) as answer:
            found = (answer.headers.get(name) for name in ("Location", "Idempotency-Replayed", "Retry-After"))
            return Told(answer.status, await answer.read(), *found)

    async def claim(self, user: str, *keys: str, coupon: str = "spring", instance: int = 0, **more: Any) -> Told:
        body = {"coupon_name": coupon, "user_id": user, **more}
        return await self.post("/api/coupons/claim", body, *keys, instance=instance)

    async def claim_patiently(self, user: str, key: str, **more: Any) -> Told:
        """As a client should: whoever is told that the same request is under way asks again."""
        while (told := await self.claim(user, key, **more)).type == "key-in-flight":
            await asyncio.sleep(float(told.retry_after or 0))
        return told

    async def offer(self, name: str = "spring", amount: int = 100, strategy: str = "row_lock") -> None:
        body = {"name": name, "amount": amount, "strategy": strategy}
        assert (await self.post("/api/coupons", body)).status == 201

    async def left(self, name: str = "spring") -> int:
        async with self.session.get(f"{self.urls[0]}/api/coupons/{name}") as answer:
            coupon = await answer.json()
        assert coupon["amount"] - coupon["remaining_amount"] == len(coupon["claimed_by"])
        return int(coupon["remaining_amount"])


Open = Callable[..., Any]


@pytest.fixture
def instances(database_url: str, redis_urls: tuple[str, ...]) -> Open:
    @asynccontextmanager
    async def opened(count: int = 1, **settings: Any) -> AsyncIterator[Instances]:
        chosen = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,), **settings)
        async with AsyncExitStack() as stack:
            urls = []
            for _ in range(count):
                app = await stack.enter_async_context(application(chosen))
                port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
                urls.append(f"http://127.0.0.1:{port}")
            yield Instances(urls, await stack.enter_async_context(aiohttp.ClientSession()))

    return opened


@asynccontextmanager
async def hung(database_url: str, name: str = "spring") -> AsyncIterator[Callable[[], Any]]:
    """The claims of a coupon hang, while another transaction holds its row. Gives what counts those that do."""
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watcher,
    ):
        await holder.execute("SELECT FROM coupons WHERE name = %s FOR UPDATE", [name])

        async def waiting() -> int:
            found = await watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return int((await found.fetchall())[0][0])

        yield waiting


@pytest.mark.parametrize("strategy", list(StrategyName))
async def test_fifty_at_once_over_several_instances_are_one_claim_and_fifty_equal_answers(
    instances: Open, strategy: str
) -> None:
    async with instances(3) as service:
        await service.offer(strategy=strategy)
        told = await asyncio.gather(*(service.claim_patiently("ada", "k-1", instance=n % 3) for n in range(50)))
        assert len({each.essence for each in told}) == 1
        assert told[0].status == 201
        assert [each.replayed for each in told].count("true") == 49
        assert await service.left() == 99


async def test_fifty_at_once_that_are_refused_are_told_of_the_same_refusal(instances: Open) -> None:
    async with instances(2) as service:
        await service.offer(amount=1)
        assert (await service.claim("bob")).status == 201
        told = await asyncio.gather(*(service.claim_patiently("ada", "k-1", instance=n % 2) for n in range(50)))
        # Byte for byte, the id of the first request included.
        assert len({each.essence for each in told}) == 1
        assert told[0].type == "sold-out"


async def test_what_was_answered_outlives_the_service(instances: Open) -> None:
    async with instances() as service:
        await service.offer()
        claimed = await service.claim("ada", "made")
        refused = await service.claim("ada", "refused")
        await service.offer("last", 1)
        await service.claim("eve", coupon="last")
        sold_out = await service.claim("ada", "sold-out", coupon="last")
        unknown = await service.claim("ada", "unknown", coupon="none")
        held = await service.claim("ben", "held", hold_seconds=60)
        assert [each.status for each in (claimed, refused, sold_out, unknown, held)] == [201, 409, 409, 404, 201]
        assert not any(each.replayed for each in (claimed, refused, sold_out, unknown, held))
    async with instances() as service:
        for first, again in (
            (claimed, await service.claim("ada", "made")),
            (refused, await service.claim("ada", "refused")),
            (sold_out, await service.claim("ada", "sold-out", coupon="last")),
            (held, await service.claim("ben", "held", hold_seconds=60)),
        ):
            assert (again.essence, again.replayed) == (first.essence, "true")
        assert (await service.claim("ada", "made", hold_seconds=60)).type == "key-reused"
        assert await service.left() == 98
        # Of what is not there, nothing is stored: anybody can make names up.
        again = await service.claim("ada", "unknown", coupon="none")
        assert (again.status, again.type, again.replayed) == (404, "unknown-coupon", None)


async def test_what_happens_to_a_claim_afterwards_changes_nothing_of_its_answer(instances: Open) -> None:
    async with instances() as service:
        await service.offer(amount=1)
        first = await service.claim("ada", "k")
        path = f"/api/claims/{json.loads(first.body)['id']}"
        async with service.session.delete(service.urls[0] + path, json={"reason": "changed my mind"}) as answer:
            assert answer.status == 200
        assert (await service.claim("ben")).status == 201
        again = await service.claim("ada", "k")
        assert (again.essence, again.replayed) == (first.essence, "true")
        assert await service.left() == 0


async def test_while_a_claim_hangs_its_repetition_is_told_that_it_is_in_flight_and_another_request_is_refused(
    instances: Open, database_url: str
) -> None:
    async with instances(**_PATIENT) as service:
        await service.offer()
        async with hung(database_url) as waiting:
            first = asyncio.create_task(service.claim("ada", "k"))
            await until(lambda: _is(waiting(), 1), "the claim waits for the coupon's row")
            again = await service.claim("ada", "k")
            assert (again.status, again.type, again.retry_after) == (409, "key-in-flight", "1")

            async def refused() -> float:
                started = time.monotonic()
                assert (await service.claim("ben", "k")).type == "key-reused"
                return time.monotonic() - started

            assert await quickest(refused, 1.5) < 1.5, "it waited for the answer"
            assert not first.done()
        told = await first
        assert (told.status, told.replayed) == (201, None)
        again = await service.claim("ada", "k")
        assert (again.essence, again.replayed) == (told.essence, "true")
        assert await service.left() == 99


async def test_a_repetition_that_another_instance_gets_meanwhile_waits_for_the_same_answer(
    instances: Open, database_url: str
) -> None:
    async with instances(2, **_PATIENT) as service:
        await service.offer()
        async with hung(database_url) as waiting:
            asked = [asyncio.create_task(service.claim("ada", "k", instance=n)) for n in range(2)]
            await until(lambda: _is(waiting(), 2), "both wait for the coupon's row")
        one, other = await asyncio.gather(*asked)
        assert one.essence == other.essence
        assert (one.status, sorted([one.replayed, other.replayed], key=str)) == (201, [None, "true"])
        assert await service.left() == 99


async def test_a_client_that_hangs_up_is_told_by_its_next_request_what_came_of_the_first(
    instances: Open, database_url: str
) -> None:
    async with instances(**_PATIENT) as service:
        await service.offer()
        async with hung(database_url) as waiting:
            first = asyncio.create_task(service.claim("ada", "k"))
            await until(lambda: _is(waiting(), 1), "the claim waits for the coupon's row")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        again = await service.claim_patiently("ada", "k")
        assert (again.status, again.replayed) == (201, "true")
        assert await service.left() == 99


async def test_what_may_succeed_later_is_not_kept(instances: Open, database_url: str) -> None:
    async with instances(database_lock_timeout_seconds=0.2) as service:
        await service.offer()
        async with hung(database_url):
            assert (await service.claim("ada", "k")).status == 503
        assert (await service.claim("a user with blanks", "k")).status == 400
        told = await service.claim("ada", "k")
        assert (told.status, told.replayed) == (201, None)


async def test_a_key_belongs_to_one_request_whatever_it_looks_like(instances: Open) -> None:
    async with instances() as service:
        await service.offer()
        await service.offer("summer")
        first = await service.claim("ada", "k")
        reordered = {"user_id": "ada", "coupon_name": "spring"}
        assert (await service.post("/api/coupons/claim", reordered, "k")).essence == first.essence
        # An admin's keys are its own, and so none of those that anybody may use.
        assert (await service.post("/api/coupons", {"name": "winter", "amount": 1}, "k")).status == 201
        for other in (
            await service.claim("ben", "k"),
            await service.claim("ada", "k", coupon="summer"),
            await service.claim("ada", "k", hold_seconds=60),
            await service.post("/api/coupons", {"name": "autumn", "amount": 1}, "k"),
            await service.post("/api/coupons/summer/archive", None, "k"),
            await service.post(f"{first.location}/confirm", None, "k"),
        ):
            assert (other.status, other.type) == (422, "key-reused")
        assert (await service.left(), await service.left("summer")) == (99, 100)
        async with service.session.get(f"{service.urls[0]}/api/coupons/autumn") as answer:
            assert answer.status == 404


async def test_a_key_is_the_same_with_and_without_its_quotation_marks(instances: Open) -> None:
    async with instances() as service:
        await service.offer()
        for number, (one, other) in enumerate([("k", '"k"'), ("a" * 255, f'"{"a" * 255}"'), ("a\\b", r'"a\\b"')]):
            first = await service.claim(f"user-{number}", one)
            again = await service.claim(f"user-{number}", other)
            assert (first.status, again.essence, again.replayed) == (201, first.essence, "true")
        # A blank is fine within them.
        assert (await service.claim("ben", '"two words"')).status == 201


_NO_KEYS: tuple[tuple[str, ...], ...] = (
    *(("",), (" ",), ('""',), ("two words",), ("a, b",), ('"a", "b"',), ('"open',), ('shut"',), ('"a"b"',)),
    *(('"a\\"',), ('"a\\b"',), ('"k";p=1',), ("\u00e9",), ('"\u00e9"',), ("a" * 256,), (f'"{"a" * 256}"',)),
    *(("a" * 8000,), ("k", "k"), ("k", "other"), ("k", ""), ('" "',), ('"   "',)),
)


async def test_what_is_no_key_is_refused_and_nothing_is_done(instances: Open) -> None:
    async with instances() as service:
        await service.offer()
        for keys in _NO_KEYS:
            told = await service.claim("ada", *keys)
            assert (told.status, told.type) == (400, "bad-request"), keys
            assert [each["parameter"] for each in json.loads(told.body)["errors"]] == ["Idempotency-Key"]
        assert await service.left() == 100


async def _is(count: Any, expected: int) -> bool:
    return bool(await count == expected)
