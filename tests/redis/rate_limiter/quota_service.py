"""Quotas on real masters, and a service that has some."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
from redis.asyncio import Redis

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.domain import Quota
from claimsvc.redis.masters import open_masters
from claimsvc.redis.rate_limiter import RedisQuotas, open_quotas
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.observed import Observed
from tests.support.serving import served
from tests.support.waiting import until

FIVE_AN_HOUR = Quota("user", 5, 3600)
# Longer than anything here may take. A claim that waits for a master fails its test by this.
REDIS_TIMEOUT_SECONDS = 8.0
SOON_SECONDS = 4.0


@dataclass
class Decided:
    """`ports.QuotaObserver`."""

    results: Counter[tuple[str, str]] = field(default_factory=Counter)

    def quota_decided(self, quota_name: str, result: str) -> None:
        self.results[quota_name, result] += 1


@asynccontextmanager
async def quotas_on(
    urls: Sequence[str], *quotas: Quota, timeout_seconds: float = REDIS_TIMEOUT_SECONDS
) -> AsyncIterator[tuple[RedisQuotas, Decided]]:
    decided = Decided()
    async with (
        open_masters(urls, timeout_seconds=timeout_seconds, pool_size=4, observer=Observed()) as masters,
        open_quotas(masters.all, quotas or (FIVE_AN_HOUR,), decided) as opened,
    ):
        await until(lambda: _answers_in_time(opened, 8 * len(urls)), "every master is connected")
        for url in urls:
            async with Redis.from_url(url) as master:
                await master.flushdb()
        decided.results.clear()
        yield opened, decided


async def _answers_in_time(quotas: RedisQuotas, subjects: int) -> bool:
    """Whether so many subjects, who never ask again, are counted. The first request to a master waits to connect."""
    names = [uuid4().hex for _ in range(subjects)]
    answers = [await quotas.take(dict.fromkeys((quota.name for quota in quotas.quotas), name)) for name in names]
    return all(len(standings) == len(quotas.quotas) for standings in answers)


@dataclass
class Client:
    """Asks a service."""

    url: str
    session: aiohttp.ClientSession

    async def claim(self, coupon: str, user: str, **headers: str) -> tuple[int, Any, Any]:
        body = {"coupon_name": coupon, "user_id": user}
        async with self.session.post(f"{self.url}/api/coupons/claim", json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None), response.headers

    async def offer(self, *names: str, strategy: str = "row_lock") -> None:
        for name in names:
            body = {"name": name, "amount": 100, "strategy": strategy}
            async with self.session.post(f"{self.url}/api/coupons", json=body, headers=ADMIN) as response:
                assert response.status == 201

    async def metric(self, series: str) -> float:
        async with self.session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0.0)


@asynccontextmanager
async def service(database_url: str, redis_urls: Sequence[str], **settings: Any) -> AsyncIterator[Client]:
    """A service with the coupons `spring`, `summer` and `autumn`, which ask no master for their claims."""
    chosen = Settings(
        database_url=database_url,
        redis_urls=tuple(redis_urls),
        admin_keys=(ADMIN_DIGEST,),
        redis_timeout_seconds=REDIS_TIMEOUT_SECONDS,
        **settings,
    )
    async with application(chosen) as app, served(app, header_timeout_seconds=10) as port:
        async with aiohttp.ClientSession() as session:
            client = Client(f"http://127.0.0.1:{port}", session)
            await client.offer("spring", "summer", "autumn")
            yield client
