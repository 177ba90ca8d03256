"""Claims over raw connections to a service whose store lets them wait."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from claimsvc.domain import ClaimOutcome, StrategyName
from claimsvc.http.app import create_app
from claimsvc.http.server.fair_queue import FairQueue
from tests.http.memory_services import Observations, memory_services
from tests.support.memory_store import MemoryStore
from tests.support.serving import Running, running
from tests.support.waiting import until

# The second charset is not among the usual spellings, so its request takes the long way.
EXPRESS, ORDINARY = "application/json", "application/json; charset=UTF-8"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, object]


def claim_request(body: bytes, content_type: str = EXPRESS, more: str = "") -> bytes:
    head = f"POST /api/coupons/claim HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def claim_of(user: str, coupon: str = "plenty", content_type: str = EXPRESS) -> bytes:
    return claim_request(json.dumps({"user_id": user, "coupon_name": coupon}).encode(), content_type)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    async with asyncio.timeout(20):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["Content-Length"]))
    return Answer(int(status.split()[1]), headers, json.loads(body))


class Gate(MemoryStore):
    """A store whose claims wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.waiting = 0

    async def claim_unit(self, coupon_name: str, user_id: str) -> ClaimOutcome:
        self.asked.set()
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return await super().claim_unit(coupon_name, user_id)


@dataclass
class Gated:
    """A service whose claims of `plenty` wait until its store lets them through."""

    server: Running
    store: Gate
    observations: Observations

    async def claim(self, *requests: bytes) -> Connection:
        """Ask over a new connection, and wait until the store is asked."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(b"".join(requests))
        await self.store.asked.wait()
        return reader, writer

    async def claim_in_line(self, user: str) -> Connection:
        """Ask while nobody gets a turn, and wait until the claim is in line for one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(claim_of(user))
        await until(lambda: bool(self.in_line()), "the claim waits for its turn")
        return reader, writer

    def in_line(self) -> list[object]:
        """The connections on which something waits for its turn."""
        return [each for each in self.server.connections if each._turn]  # type: ignore[attr-defined]

    def turnstile(self) -> FairQueue:
        """That of the server; a connection must be open."""
        [connection, *_] = self.server.connections
        return connection._fast_path.queue  # type: ignore[attr-defined, no-any-return]

    def claimants(self) -> list[str]:
        return [claim.user_id for claim in self.store.claims_of["plenty"]]


@asynccontextmanager
async def gated(**limits: Any) -> AsyncIterator[Gated]:
    store, observations = Gate(), Observations()
    await store.create_coupon("plenty", 10, StrategyName.REDLOCK)
    async with running(create_app(memory_services(store, observations)), **limits) as server:
        yield Gated(server, store, observations)
