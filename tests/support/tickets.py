"""Short words for what is asked of queues, and what must always be true of them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from uuid_utils.compat import uuid7

from claimsvc.domain import (
    PLAIN,
    Attempt,
    ClaimOptions,
    IdempotencyKey,
    JoinRequest,
    Queue,
    Queued,
    QueueStatus,
    StartedTicket,
    StrategyName,
    Ticket,
    TicketState,
)
from claimsvc.ports import Dispatched, Joined
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming.dispatcher import Dispatcher
from tests.support.databases import administrate
from tests.support.storage import create_coupon

QUICK = Queue(rate_per_second=1000, concurrency=1000, max_wait_seconds=60, max_length=10_000)
"""A queue in whose way nothing stands."""

LEASE_SECONDS = 5.0


async def create_queued(
    storage: Repositories,
    amount: int = 100,
    queue: Queue | None = QUICK,
    name: str = "spring",
    strategy: StrategyName = StrategyName.ROW_LOCK,
    **campaign: Any,
) -> None:
    await create_coupon(storage, name, amount, strategy, replace(PLAIN, queue=queue, **campaign))


def wish(user_id: str, options: ClaimOptions | None = None) -> JoinRequest:
    return JoinRequest(str(uuid7()), user_id, options)


def keyed(key: str, body: str = "", request_id: str = "first") -> ClaimOptions:
    fingerprint = hashlib.sha256(body.encode()).digest()
    return ClaimOptions(idempotency_key=IdempotencyKey("open", key, fingerprint, request_id))


async def join(storage: Repositories, *users: str, on: str = "spring") -> list[Joined | None]:
    return await storage.tickets.join(on, [wish(user) for user in users])


async def joined(storage: Repositories, *users: str, on: str = "spring") -> list[Ticket]:
    """Tickets of users who must get one."""
    found = await join(storage, *users, on=on)
    tickets = [each.ticket for each in found if isinstance(each, Queued)]
    assert len(tickets) == len(users), f"{len(users) - len(tickets)} got none"
    return tickets


async def dispatch(storage: Repositories, *freed: str, instance: str = "a") -> Dispatched:
    return await storage.tickets.dispatch(instance, lease_seconds=LEASE_SECONDS, freed=freed)


async def started(storage: Repositories, *freed: str) -> list[StartedTicket]:
    return list((await dispatch(storage, *freed)).started)


async def state(storage: Repositories, ticket: Ticket | StartedTicket) -> str:
    id_ = ticket.id if isinstance(ticket, Ticket) else ticket.lease.ticket_id
    found = await storage.tickets.ticket(id_)
    return "unknown" if found is None else str(found.state)


def attempt_of(ticket: StartedTicket) -> Attempt:
    return Attempt(str(uuid7()), ticket.coupon_name, ticket.user_id, ticket.options)


async def claim(storage: Repositories, *tickets: StartedTicket) -> Sequence[Any]:
    """Make the claims of tickets, in one batch."""
    assert isinstance(storage.admission, Dispatcher)
    return await storage.admission.admit([attempt_of(each) for each in tickets])


def broken_queues(database_url: str) -> list[tuple[object, ...]]:
    """Queues whose counts differ from their tickets, and tickets that wait before the head of theirs."""
    return administrate(
        database_url,
        """
        WITH counted AS (
            SELECT coupon_name, count(*) FILTER (WHERE state = 'waiting') AS waiting,
                min(place) FILTER (WHERE state = 'waiting') AS first, max(place) AS last
            FROM tickets GROUP BY coupon_name
        ), blocks AS (
            SELECT coupon_name, place / 256 AS block, count(*) AS waiting
            FROM tickets WHERE state = 'waiting' GROUP BY 1, 2
        )
        SELECT coupon_name, 'queue' FROM queues LEFT JOIN counted USING (coupon_name)
        WHERE queues.waiting <> coalesce(counted.waiting, 0) OR head > first OR next_place <= last
        UNION ALL
        SELECT coupon_name, 'block ' || block FROM blocks FULL JOIN ticket_blocks USING (coupon_name, block)
        WHERE coalesce(blocks.waiting, 0) <> coalesce(ticket_blocks.waiting, 0)
        UNION ALL
        SELECT coupon_name, 'lost' FROM tickets LEFT JOIN queues USING (coupon_name)
        WHERE state IN ('waiting', 'started') AND queues.due_at IS NULL
            AND NOT queues.paused
            AND NOT coalesce((SELECT paused FROM campaigns WHERE coupon_name = queues.coupon_name), false)
        """,
    )


class Seen:
    """`ports.TicketObserver` that remembers."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ends: Counter[TicketState] = Counter()
        self.lags: list[float] = []

    def ticket_started(self, coupon_name: str, waited_seconds: float) -> None:
        self.started.append(coupon_name)

    def ticket_ended(self, coupon_name: str, end: TicketState) -> None:
        self.ends[end] += 1

    def dispatched(self, lag_seconds: float) -> None:
        self.lags.append(lag_seconds)

    def queues_sampled(self, statuses: Sequence[QueueStatus]) -> None: ...
