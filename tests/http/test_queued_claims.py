"""Claims that wait in a queue: 202 with a ticket, on the fast path as on the ordinary way; and who prefers to wait."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from claimsvc.domain import ClaimOptions, Queued, QueueFull, Quota
from claimsvc.http.app import create_app
from claimsvc.http.framework.preferences import Preferences, parse
from claimsvc.ports import PendingOutcome
from tests.http.gated import ORDINARY
from tests.http.guarded import both_ways
from tests.http.memory_services import MemoryStrategy, Observations, memory_services
from tests.http.ticketed import HeldTickets, ticket_id, waiting
from tests.support.memory_store import MemoryStore
from tests.support.serving import served
from tests.support.token_issuer import Issuer, bearer


class QueueingStrategy(MemoryStrategy):
    """Lets claims of `mega`, and those that prefer it, wait; `mega` has room for two."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.tickets = HeldTickets()

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        if coupon_name != "mega" and (options is None or not options.prefers_ticket):
            return super().claim(coupon_name, user_id, options)
        self._store.wants.append(options)
        found = self.tickets.found
        mine = next(
            (each for each in found.values() if (each.coupon_name, each.user_id) == (coupon_name, user_id)), None
        )
        answer = PendingOutcome()
        if mine is None and len(found) == 2:
            answer.set_result(QueueFull(7))
        else:
            number = len(found)
            mine = mine or waiting(number, user_id, id=ticket_id(number), coupon_name=coupon_name)
            found[mine.id] = mine
            answer.set_result(Queued(mine))
        return answer


_ASYNC = "Prefer: respond-async\r\n"


def _body(user: str, coupon: str = "mega", **more: object) -> bytes:
    return json.dumps({"user_id": user, "coupon_name": coupon, **more}).encode()


def _head_and_body(answer: bytes) -> tuple[bytes, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, json.loads(body)


@pytest.mark.parametrize("quotas", [(), (Quota("user", 9, 60),)])
async def test_a_claim_that_waits_is_answered_with_its_ticket_on_both_ways(
    tmp_path: Path, quotas: tuple[Quota, ...]
) -> None:
    requests = [
        (_body("ann"), ""),
        (_body("ann"), _ASYNC),
        (_body("ben"), ""),
        (_body("cleo"), ""),
        (_body("cleo"), _ASYNC),
        (_body("ann"), "Prefer: wait=5\r\nPrefer: handling=lenient, Respond-Async; x=y\r\n"),
        (_body("ann"), "Prefer: wait=5\r\n"),
        (_body("ann"), _ASYNC + "Idempotency-Key: k-1\r\n"),
        (_body("none", "plenty", hold_seconds=0), _ASYNC),
    ]
    told, ordinary = await both_ways(tmp_path, None, requests, strategy=QueueingStrategy(MemoryStore()), quotas=quotas)
    assert ordinary == 0
    assert [int(each.split()[1]) for each in told] == [202, 202, 202, 429, 429, 202, 202, 202, 400]
    applied = [b"Preference-Applied: respond-async\r\n" in each for each in told]
    assert applied == [False, True, False, False, False, True, False, True, False]
    head, ticket = _head_and_body(told[0])
    assert f"Location: /api/tickets/{ticket['id']}\r\n".encode() in head
    assert b"Retry-After: 1\r\n" in head
    assert ticket == {
        "id": ticket["id"],
        "coupon_name": "mega",
        "user_id": "ann",
        "state": "waiting",
        "position": 1,
        "ahead": 0,
        "eta_seconds": 0.2,
        "stopped": None,
        "joined_at": "2026-01-02T03:04:05Z",
        "started_at": None,
        "ended_at": None,
        "outcome": None,
    }
    head, problem = _head_and_body(told[3])
    assert problem["type"] == "/problems/queue-full"
    assert b"Retry-After: 7\r\n" in head


async def test_users_with_tokens_wait_for_themselves(tmp_path: Path) -> None:
    issuer = Issuer()
    ann = f"Authorization: {bearer(issuer.token('ann'))['Authorization']}\r\n"
    requests = [(b'{"coupon_name": "mega"}', ann + _ASYNC), (_body("ben"), ann + _ASYNC)]
    told, ordinary = await both_ways(tmp_path, issuer, requests, strategy=QueueingStrategy(MemoryStore()))
    assert ordinary == 0
    assert [int(each.split()[1]) for each in told] == [202, 403]
    assert _head_and_body(told[0])[1]["user_id"] == "ann"


@pytest.fixture
async def asked() -> AsyncIterator[tuple[QueueingStrategy, str, aiohttp.ClientSession]]:
    store = MemoryStore()
    strategy = QueueingStrategy(store)
    services = memory_services(store, Observations(), strategy=strategy)
    async with served(create_app(services)) as port, aiohttp.ClientSession() as client:
        yield strategy, f"http://127.0.0.1:{port}/api/coupons/claim", client


@pytest.mark.parametrize("content_type", ["application/json", ORDINARY])
@pytest.mark.parametrize("prefer", [(), ("respond-async",), ("wait=3",), ("a, b", "respond-async, wait=3"), ("a=(",)])
async def test_only_who_prefers_it_gets_a_ticket_for_a_coupon_without_a_queue(
    asked: tuple[QueueingStrategy, str, aiohttp.ClientSession], content_type: str, prefer: tuple[str, ...]
) -> None:
    strategy, url, client = asked
    headers = [("Content-Type", content_type), *(("Prefer", value) for value in prefer)]
    async with client.post(url, data=_body("ann", "plain"), headers=headers) as response:
        answer = await response.json()
    is_preferred = any("respond-async" in value for value in prefer)
    options = strategy._store.wants[-1]
    assert (options is not None and options.prefers_ticket) is is_preferred
    assert (response.status, response.headers.get("Preference-Applied")) == (
        (202, "respond-async") if is_preferred else (404, None)
    )
    assert answer["id"] == ticket_id(0) if is_preferred else answer["type"] == "/problems/unknown-coupon"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((), Preferences()),
        (("respond-async, wait=5",), Preferences(True, 5)),
        (("respond-async", "wait=5"), Preferences(True, 5)),
        (('Wait = "05"; a=b ; c, RESPOND-ASYNC = ""',), Preferences(True, 5)),
        (("wait=1, wait=2", "wait=3"), Preferences(wait_seconds=1)),
        (('a="x, respond-async\\", wait=1", wait=2',), Preferences(wait_seconds=2)),
        (("a; respond-async; wait=1",), Preferences()),
        (("respond-async=yes, wait",), Preferences()),
        (("wait=-1",), Preferences()),
        (("wait=1.5, respond-async",), Preferences(True)),
        (("wait=1000000000",), Preferences()),
        (("wait=\u0661",), Preferences()),
        # What is malformed is ignored from there on, in this header alone.
        (("respond-async wait=1", "wait=2"), Preferences(True, 2)),
        (("=, respond-async", ' ,, "', "wait=2"), Preferences(wait_seconds=2)),
        # As is what is far too long.
        (("a," * 600, "respond-async"), Preferences()),
    ],
)
def test_preferences_are_read_as_rfc_7240_has_them(headers: tuple[str, ...], found: Preferences) -> None:
    assert parse(headers) == found
