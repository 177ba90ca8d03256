"""What a running service tells of its queues: on real servers, over HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.serving import served

_SECONDS = 20.0


class Service:
    """A service, and what its clients do."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def create(self, name: str, amount: int, queue: dict[str, object] | None) -> None:
        body = {"name": name, "amount": amount} | ({} if queue is None else {"queue": queue})
        async with self._client.post("/api/coupons", json=body, headers=ADMIN) as answer:
            assert answer.status == 201, await answer.text()

    async def claim(self, name: str, users: int) -> list[int]:
        async def one(number: int) -> int:
            body = {"coupon_name": name, "user_id": f"user-{number}"}
            async with self._client.post("/api/coupons/claim", json=body) as answer:
                return answer.status

        return sorted(await asyncio.gather(*map(one, range(users))))

    async def leave(self, name: str, user: str) -> list[int]:
        """Join, and leave twice."""
        body = {"coupon_name": name, "user_id": user}
        async with self._client.post("/api/coupons/claim", json=body) as answer:
            location = answer.headers["Location"]
        statuses = []
        for _ in range(2):
            async with self._client.delete(location) as answer:
                statuses.append(answer.status)
        return statuses

    async def metrics(self) -> dict[str, float]:
        async with self._client.get("/metrics") as answer:
            text = await answer.text()
        return {name: float(value) for name, value in re.findall(r"^(claimsvc_\S+) (\S+)$", text, re.MULTILINE)}

    async def tells(self, series: str, value: float) -> dict[str, float]:
        """Wait until a series has a value."""
        async with asyncio.timeout(_SECONDS):
            while (seen := await self.metrics()).get(series) != value:
                await asyncio.sleep(0.1)
        return seen


@pytest.fixture
async def service(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Service]:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))
    async with application(settings) as app, served(app) as port:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            yield Service(client)


def queue(**changes: object) -> dict[str, object]:
    return {"rate_per_second": 100, "concurrency": 5, "max_wait_seconds": 60, "max_length": 10} | changes


async def test_claims_that_wait_are_told_from_joining_to_their_end(service: Service) -> None:
    await service.create("spring", 100, queue(rate_per_second=1))
    assert await service.claim("spring", 6) == [202] * 6
    # The queues are looked at every three seconds, and it takes five to start them all.
    async with asyncio.timeout(_SECONDS):
        while not (seen := await service.metrics()).get('claimsvc_tickets_waiting{coupon="spring"}'):
            await asyncio.sleep(0.1)
    assert 0 < seen['claimsvc_ticket_longest_wait_ratio{coupon="spring"}'] < 1
    assert seen['claimsvc_queue_stalled_seconds{coupon="spring"}'] < 5
    seen = await service.tells('claimsvc_tickets_total{coupon="spring",end="claimed"}', 6)
    assert seen['claimsvc_ticket_wait_seconds_count{coupon="spring"}'] == 6
    assert seen["claimsvc_ticket_dispatch_lag_seconds_count"] == 6
    queued = 'claimsvc_claims_total{coupon="spring",outcome="queued",strategy="queue"}'
    claimed = 'claimsvc_claims_total{coupon="spring",outcome="claimed",strategy="redlock"}'
    assert (seen[queued], seen[claimed]) == (6, 6)
    await service.tells('claimsvc_tickets_waiting{coupon="spring"}', 0)


async def test_a_queue_that_is_full_refuses_and_that_is_no_failure(service: Service) -> None:
    await service.create("spring", 100, queue(rate_per_second=1, concurrency=1, max_length=3))
    statuses = await service.claim("spring", 12)
    assert set(statuses) == {202, 429}
    seen = await service.metrics()
    full = 'claimsvc_claims_total{coupon="spring",outcome="queue-full",strategy="queue"}'
    assert seen[full] == statuses.count(429)
    failed = [value for name, value in seen.items() if name.startswith("claimsvc_claims_total") and "unavail" in name]
    assert sum(failed) == 0


async def test_tickets_that_expire_are_told(service: Service) -> None:
    await service.create("spring", 100, queue(rate_per_second=1, concurrency=1, max_wait_seconds=2))
    assert await service.claim("spring", 10) == [202] * 10
    seen: dict[str, float] = {}
    expired = 'claimsvc_tickets_total{coupon="spring",end="expired"}'
    async with asyncio.timeout(_SECONDS):
        while sum(seen.get(expired.replace("expired", end), 0) for end in ("expired", "claimed")) < 10:
            await asyncio.sleep(0.1)
            seen = await service.metrics()
    assert seen[expired] >= 7
    await service.tells('claimsvc_dead_letters{kind="ticket"}', 0)


async def test_a_ticket_that_leaves_is_counted_once(service: Service) -> None:
    await service.create("spring", 100, queue(rate_per_second=1))
    assert await service.claim("spring", 5) == [202] * 5
    assert await service.leave("spring", "eve") == [204, 204]
    await service.tells('claimsvc_tickets_total{coupon="spring",end="claimed"}', 5)
    assert (await service.metrics())['claimsvc_tickets_total{coupon="spring",end="left"}'] == 1
