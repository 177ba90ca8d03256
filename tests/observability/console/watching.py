"""An instance and who watches it: a client of the stream that knows no more of it than a browser does."""

import asyncio
import itertools
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from claimsvc.observability.console import Live
from tests.support.admin import ADMIN

_users = itertools.count()


@dataclass(slots=True)
class Instance:
    """One instance, as its clients see it; `live` is for what only its operator could see."""

    url: str
    live: Live
    client: aiohttp.ClientSession

    async def create(
        self, name: str, amount: int, strategy: str = "redlock", queue: dict[str, int] | None = None
    ) -> None:
        body = {"name": name, "amount": amount, "strategy": strategy} | ({} if queue is None else {"queue": queue})
        async with self.client.post(f"{self.url}/api/coupons", json=body, headers=ADMIN) as answer:
            assert answer.status == 201

    async def claim(self, name: str, times: int = 1) -> list[int]:
        """So many claims at once, of as many users. The result is their statuses."""

        async def one(number: int) -> int:
            body = {"coupon_name": name, "user_id": f"user-{number}"}
            async with self.client.post(f"{self.url}/api/coupons/claim", json=body) as answer:
                return answer.status

        return await asyncio.gather(*(one(next(_users)) for _ in range(times)))

    @asynccontextmanager
    async def claiming(self, name: str, at_once: int = 10) -> AsyncIterator[None]:
        """Claims without a pause while inside."""

        async def for_ever() -> None:
            while True:
                await self.claim(name)

        tasks = [asyncio.create_task(for_ever()) for _ in range(at_once)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Watcher"]:
        """Somebody watches while inside."""
        async with self.client.get(f"{self.url}/console/events", timeout=aiohttp.ClientTimeout(total=None)) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            watcher = Watcher(answer)
            reading = asyncio.create_task(watcher.read())
            try:
                yield watcher
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


@dataclass(slots=True)
class Watcher:
    """Reads a stream, and remembers it."""

    answer: aiohttp.ClientResponse
    pictures: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    picture_times: list[float] = field(default_factory=list)
    event_times: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        kind = ""
        try:
            async for line in self.answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    self.events.append(kind)
                    self.event_times.append(time.monotonic())
                    if kind == "picture":
                        self.pictures.append(orjson.loads(value))
                        self.picture_times.append(time.monotonic())
        finally:
            self.ended.set()

    async def sees(self, what: Callable[[dict[str, Any]], object], within_seconds: float = 10.0) -> dict[str, Any]:
        """The first picture, of those still to come and the last one, of which it is true."""
        deadline = time.monotonic() + within_seconds
        looked_at = max(0, len(self.pictures) - 1)
        while time.monotonic() < deadline:
            for picture in self.pictures[looked_at:]:
                looked_at += 1
                if what(picture):
                    return picture
            await asyncio.sleep(0.01)
        raise AssertionError(f"not seen in {looked_at} pictures; the last: {self.pictures[-1:]}")


def most_within(times: Sequence[float], seconds: float) -> int:
    """How many of these moments, in their order, lie within so long of one another at most."""
    return max((bisect_right(times, first + seconds) - place for place, first in enumerate(times)), default=0)


def coupon(message: dict[str, Any], name: str) -> dict[str, Any]:
    """A coupon's row in a message; empty if it has none."""
    return next((row for row in message["picture"]["coupons"] if row["name"] == name), {})
