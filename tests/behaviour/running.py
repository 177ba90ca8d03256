"""The whole service on two instances in a thread of its own, for tests that are no coroutines."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

import aiohttp

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from tests.behaviour.model import Answer
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.serving import served

_T = TypeVar("_T")
_TIMEOUT_SECONDS = 30.0


class RunningService:
    """Instances behind HTTP, and clients that may ask all of them at once."""

    def __init__(self, database_url: str, redis_urls: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> None:
        self.database_url = database_url
        self.redis_urls = redis_urls
        self.examples = 0
        self._loop = loop
        self._urls: list[str] = []
        self._client: aiohttp.ClientSession
        self._stack = AsyncExitStack()

    def start(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.start(work).result(_TIMEOUT_SECONDS)

    async def open(self, instances: int) -> None:
        settings = Settings(database_url=self.database_url, redis_urls=self.redis_urls, admin_keys=(ADMIN_DIGEST,))
        for _ in range(instances):
            app = await self._stack.enter_async_context(application(settings))
            port = await self._stack.enter_async_context(served(app, header_timeout_seconds=10))
            self._urls.append(f"http://127.0.0.1:{port}")
        self._client = await self._stack.enter_async_context(aiohttp.ClientSession())

    async def close(self) -> None:
        await self._stack.aclose()

    async def ask(self, instance: int, method: str, path: str, **options: Any) -> Answer:
        url = self._urls[instance % len(self._urls)] + path
        async with self._client.request(method, url, **options) as response:
            return Answer(response.status, await response.json(content_type=None))

    def create(self, instance: int, name: str, amount: int, strategy: str) -> Answer:
        body = {"name": name, "amount": amount, "strategy": strategy}
        return self.run(self.ask(instance, "POST", "/api/coupons", json=body, headers=ADMIN))

    def claim_at_once(self, claims: Sequence[tuple[int, str, str]]) -> list[Answer]:
        """Claims (instance, coupon, user) that are all sent before any of them is answered."""

        async def claim_all() -> list[Answer]:
            return await asyncio.gather(
                *(
                    self.ask(instance, "POST", "/api/coupons/claim", json={"coupon_name": coupon_name, "user_id": user})
                    for instance, coupon_name, user in claims
                )
            )

        return self.run(claim_all())

    def pages(self, instance: int, path: str, query: dict[str, str], **options: Any) -> list[Any] | None:
        """The items of all pages, by their cursors; None if there is no such coupon."""
        items: list[Any] = []
        while True:
            answer = self.run(self.ask(instance, "GET", path, params=query, **options))
            if answer.status == 404:
                return None
            assert answer.status == 200, answer
            assert len(answer.body["items"]) <= int(query["limit"])
            items += answer.body["items"]
            if answer.body["next_cursor"] is None:
                return items
            query = {**query, "cursor": answer.body["next_cursor"]}


@contextmanager
def running_service(database_url: str, redis_urls: tuple[str, ...], *, instances: int = 2) -> Iterator[RunningService]:
    """Serve while inside."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    service = RunningService(database_url, redis_urls, loop)
    try:
        service.run(service.open(instances))
        yield service
    finally:
        try:
            service.run(service.close())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
