"""What is claimed in one run of the sweep, and what was answered."""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Act(StrEnum):
    """What is asked for in a run."""

    CLAIM = "claim"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    JOIN = "join"
    """A claim of a coupon with a queue, which is paused."""
    START = "start"
    """Nothing: a queue goes on that was paused, and the service starts those who wait."""
    LEAVE = "leave"
    """To leave a queue that is paused."""

    @property
    def is_of_tickets(self) -> bool:
        return self in {Act.JOIN, Act.START, Act.LEAVE}


class Role(StrEnum):
    """What a second instance is, with which the service combines."""

    HOLDER = "holder"
    """It holds the lock, so that the service hands its batch over."""
    ORIGIN = "origin"
    """It hands a batch to the service."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked for at once: claims, or what becomes of claims that were made before.

    Args:
        coupons: how many coupons; each is claimed by `claimants` distinct users and has `units`.
        locked_seconds: the coupons' locks are somebody else's for so long, so that the claims have to wait in line.
        sells: whether the service has just seen each coupon give all that it was asked for, and so expects it again.
        held: the units are held for a time only.
        keyed: everybody asks under an Idempotency-Key, and again under the same.
        act: what is asked for; all but claims and joins is about what was made before the run.
        partner: what a second instance is; None if there is none.
        partners_claimants: how many users claim each coupon from it.
    """

    name: str
    coupons: int
    claimants: int
    units: int
    locked_seconds: float = 0.0
    sells: bool = False
    held: bool = False
    keyed: bool = False
    act: Act = Act.CLAIM
    partner: Role | None = None
    partners_claimants: int = 0

    def request(self, claimant: "Claimant", claim_id: str = "") -> "Request":
        """What this claimant asks for; `claim_id` is of the claim that was made before."""
        key = f"{claimant.coupon_name}-{claimant.user_id}" if self.keyed else ""
        if self.act is Act.CONFIRM:
            return Request("POST", f"/api/claims/{claim_id}/confirm", None, key)
        if self.act is Act.CANCEL:
            return Request("DELETE", f"/api/claims/{claim_id}", {"reason": "the sweep"})
        if self.act is Act.LEAVE:
            return Request("DELETE", f"/api/tickets/{claim_id}", None)
        return claim_request(claimant, held=self.held, key=key)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; `key` is its Idempotency-Key, if it has one."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    key: str = ""


def claim_request(claimant: "Claimant", *, held: bool = False, key: str = "") -> Request:
    """A claim; one that is held is held for longer than any run."""
    hold = {"hold_seconds": 3600} if held else {}
    body = {"coupon_name": claimant.coupon_name, "user_id": claimant.user_id, **hold}
    return Request("POST", "/api/coupons/claim", body, key)


SINGLE = Scenario("one claim", coupons=1, claimants=1, units=2)
BATCH = Scenario("batch of 8", coupons=1, claimants=8, units=5)
GROUP = Scenario("4 coupons", coupons=4, claimants=2, units=1)
WAITING = Scenario("lock is busy", coupons=1, claimants=1, units=2, locked_seconds=0.1)
SALE = Scenario("sale to 8", coupons=1, claimants=8, units=9, sells=True)
SHORT_SALE = Scenario("sale to 8, too few units", coupons=1, claimants=8, units=5, sells=True)
HOLDS = Scenario("holds for 8", coupons=1, claimants=8, units=5, held=True)
KEYED = Scenario("keyed claims of 8", coupons=1, claimants=8, units=5, keyed=True)
CONFIRMED = Scenario("holds confirmed", coupons=2, claimants=2, units=2, held=True, keyed=True, act=Act.CONFIRM)
CANCELLED = Scenario("claims cancelled", coupons=2, claimants=2, units=2, act=Act.CANCEL)
HANDED = Scenario("batch handed over", coupons=1, claimants=6, units=10, partner=Role.HOLDER, partners_claimants=3)
RECEIVED = Scenario(
    "batch received, too few units", coupons=1, claimants=3, units=7, partner=Role.ORIGIN, partners_claimants=6
)
JOINED = Scenario("tickets join", coupons=1, claimants=6, units=10, act=Act.JOIN)
JOINED_KEYED = Scenario("tickets join by keys", coupons=1, claimants=3, units=10, keyed=True, act=Act.JOIN)
STARTED = Scenario("tickets start", coupons=2, claimants=3, units=10, act=Act.START)
LEFT = Scenario("tickets leave", coupons=1, claimants=3, units=10, act=Act.LEAVE)
SCENARIOS = (
    *(SINGLE, BATCH, GROUP, WAITING, SALE, SHORT_SALE, HOLDS, KEYED, CONFIRMED, CANCELLED, HANDED, RECEIVED),
    *(JOINED, JOINED_KEYED, STARTED, LEFT),
)


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
    is_replayed: bool = False

    def __str__(self) -> str:
        return f"{self.status} {self.problem}".rstrip() if self.status else "no answer"


def claimants(scenario: Scenario, coupon_names: Sequence[str]) -> list[Claimant]:
    return [Claimant(name, f"user-{i}") for i in range(scenario.claimants) for name in coupon_names]


def partners_claimants(scenario: Scenario, coupon_names: Sequence[str]) -> list[Claimant]:
    """Those who claim from the second instance."""
    return [Claimant(name, f"partners-{i}") for i in range(scenario.partners_claimants) for name in coupon_names]


async def ask_all(port: int, requests: Sequence[Request], patience_seconds: float) -> list[Answer]:
    """Ask at once, over a connection each that is open before the first asks."""
    connections = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in requests))
    return await asyncio.gather(
        *(
            _ask(*connection, request, keep=i % 2 == 0, patience_seconds=patience_seconds)
            for i, (connection, request) in enumerate(zip(connections, requests, strict=True))
        )
    )


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, keep: bool, patience_seconds: float
) -> Answer:
    """Ask on a connection that both sides keep or close: the service has a way of its own for those that it keeps."""
    started = time.monotonic()
    head, told = b"", b""
    try:
        async with asyncio.timeout(patience_seconds):
            writer.write(_bytes(request, keep=keep))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            told = await reader.readexactly(int(length[1]) if length else 0)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()
    seconds = time.monotonic() - started
    if head.split(b" ", 2)[1:2] == [b"204"]:
        return Answer(204, "", "", seconds)
    try:
        document: dict[str, Any] = json.loads(told)
    except ValueError:
        return Answer(0, "", "", seconds)
    claim = document.get("claim", document)
    problem = str(document.get("type", "")).removeprefix("/problems/")
    is_replayed = b"idempotency-replayed" in head.lower()
    return Answer(int(head.split(b" ", 2)[1]), problem, str(claim.get("id", "")), seconds, is_replayed)


async def get(port: int, path: str) -> str:
    """The body of an answer to GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_bytes(Request("GET", path, None), keep=False))
        return (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    finally:
        writer.transport.abort()


def _bytes(request: Request, *, keep: bool) -> bytes:
    body = "" if request.body is None else json.dumps(request.body)
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: sweep\r\n"
    if request.key:
        head += f"Idempotency-Key: {request.key}\r\n"
    if not keep:
        head += "Connection: close\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()
