"""What is claimed in one run of the sweep, and what was answered."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_CLAIM = "/api/coupons/claim"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Claims that are made at once.

    Args:
        coupons: how many coupons; each is claimed by `claimants` distinct users and has `units`.
        locked_seconds: the coupons' locks are somebody else's for so long, so that the claims have to wait in line.
        sells: whether the service has just seen each coupon give all that it was asked for, and so expects it again.
    """

    name: str
    coupons: int
    claimants: int
    units: int
    locked_seconds: float = 0.0
    sells: bool = False


SINGLE = Scenario("one claim", coupons=1, claimants=1, units=2)
BATCH = Scenario("batch of 8", coupons=1, claimants=8, units=5)
GROUP = Scenario("4 coupons", coupons=4, claimants=2, units=1)
WAITING = Scenario("lock is busy", coupons=1, claimants=1, units=2, locked_seconds=0.1)
SALE = Scenario("sale to 8", coupons=1, claimants=8, units=9, sells=True)
SHORT_SALE = Scenario("sale to 8, too few units", coupons=1, claimants=8, units=5, sells=True)
SCENARIOS = (SINGLE, BATCH, GROUP, WAITING, SALE, SHORT_SALE)


@dataclass(frozen=True, slots=True)
class Claimant:
    """One who claims a coupon."""

    coupon_name: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a claimant was told. A status of 0: nothing, the connection ended or the client's patience."""

    status: int
    problem: str
    claim_id: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.status} {self.problem}".rstrip() if self.status else "no answer"


def claimants(scenario: Scenario, coupon_names: Sequence[str]) -> list[Claimant]:
    return [Claimant(name, f"user-{i}") for i in range(scenario.claimants) for name in coupon_names]


async def claim_all(port: int, all_of_them: Sequence[Claimant], patience_seconds: float) -> list[Answer]:
    """Have them claim at once, over a connection each that is open before the first claims."""
    connections = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in all_of_them))
    return await asyncio.gather(
        *(
            _claim(*connection, claimant, keep=i % 2 == 0, patience_seconds=patience_seconds)
            for i, (connection, claimant) in enumerate(zip(connections, all_of_them, strict=True))
        )
    )


async def _claim(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, claimant: Claimant, keep: bool, patience_seconds: float
) -> Answer:
    """Claim on a connection that both sides keep or close: the service has a way of its own for those that it keeps."""
    body = json.dumps({"coupon_name": claimant.coupon_name, "user_id": claimant.user_id})
    started = time.monotonic()
    head, told = b"", b""
    try:
        async with asyncio.timeout(patience_seconds):
            writer.write(_request("POST", _CLAIM, body, keep=keep))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            told = await reader.readexactly(int(length[1]) if length else 0)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()
    seconds = time.monotonic() - started
    try:
        document: dict[str, Any] = json.loads(told)
    except ValueError:
        return Answer(0, "", "", seconds)
    claim = document.get("claim", document)
    problem = str(document.get("type", "")).removeprefix("/problems/")
    return Answer(int(head.split(b" ", 2)[1]), problem, str(claim.get("id", "")), seconds)


async def get(port: int, path: str) -> str:
    """The body of an answer to GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_request("GET", path, "", keep=False))
        return (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    finally:
        writer.transport.abort()


def _request(method: str, path: str, body: str, *, keep: bool) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: sweep\r\n"
    if not keep:
        head += "Connection: close\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()
