"""Queues as operators see them: their state, the tickets in them, and dead letters."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from claimsvc import domain
from claimsvc.domain.outcomes import problem_of
from claimsvc.representations.claims import claim_body
from claimsvc.representations.fields import CouponName, UserId
from claimsvc.representations.queues import QueueBody

_ID = {"format": "uuid"}
Tries = Annotated[int, Field(ge=0, description="how often its claim was begun", examples=[1])]


@dataclass(frozen=True, slots=True)
class QueueStatusBody:
    """A queue now."""

    coupon_name: CouponName
    queue: QueueBody
    waiting: Annotated[int, Field(ge=0, description="tickets that wait")]
    started: Annotated[int, Field(ge=0, description="tickets whose claims are under way, or are tried again")]
    dead: Annotated[int, Field(ge=0, description="tickets that are dead letters")]
    pace: Annotated[float, Field(ge=0, description="how many tickets were started a second of late")]
    stopped: Annotated[
        domain.QueueStop | None, Field(description="why no ticket is started now; null if tickets are started")
    ]
    paused: Annotated[bool, Field(description="whether an operator has paused the queue")]
    oldest_joined_at: Annotated[datetime | None, Field(description="when the first of those that wait has joined")]
    dispatcher: Annotated[str | None, Field(description="the instance that started tickets last")]
    dispatched_at: Annotated[datetime | None, Field(description="when that was")]


@dataclass(frozen=True, slots=True)
class QueuesBody:
    """The queues in which tickets wait, are started or are dead letters, ordered by coupon."""

    items: list[QueueStatusBody]


@dataclass(frozen=True, slots=True)
class ListedTicketBody:
    """A ticket in a list: a claim that waits, or has waited, in a coupon's queue. Lists do not show places."""

    id: Annotated[str, Field(json_schema_extra=_ID)]
    coupon_name: CouponName
    user_id: UserId
    state: domain.TicketState
    joined_at: datetime
    started_at: Annotated[datetime | None, Field(description="when its claim was begun first")]
    ended_at: Annotated[datetime | None, Field(description="when its state became final")]
    tries: Tries


@dataclass(frozen=True, slots=True)
class OperatorTicketBody(ListedTicketBody):
    """A ticket as the command line shows it: with its place, and with what became of it, as its user reads it."""

    position: int | None
    ahead: int | None
    eta_seconds: float | None
    stopped: domain.QueueStop | None
    outcome: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class TicketPageBody:
    """A page of a coupon's tickets, in the order in which they joined. `next_cursor` is null on the last page."""

    items: list[ListedTicketBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterBody:
    """What the service has failed to do too often. `kind` says what it is: a `ticket`."""

    id: Annotated[str, Field(json_schema_extra=_ID)]
    kind: Literal["ticket"]
    coupon_name: CouponName
    user_id: UserId
    dead_at: Annotated[datetime | None, Field(description="when it was given up")]
    tries: Tries


@dataclass(frozen=True, slots=True)
class DeadLetterPageBody:
    """A page of dead letters, oldest first. `next_cursor` is null on the last page."""

    items: list[DeadLetterBody]
    next_cursor: str | None


def _settings(queue: domain.Queue) -> QueueBody:
    return QueueBody(queue.rate_per_second, queue.concurrency, queue.max_wait_seconds, queue.max_length, queue.order)


def status_body(status: domain.QueueStatus) -> QueueStatusBody:
    """The body of a queue."""
    return QueueStatusBody(
        status.coupon_name,
        _settings(status.queue),
        status.waiting,
        status.started,
        status.dead,
        round(status.pace, 3),
        status.stopped,
        status.is_paused,
        status.oldest_joined_at,
        status.dispatcher,
        status.dispatched_at,
    )


def queues_body(statuses: Iterable[domain.QueueStatus]) -> QueuesBody:
    """The body of the list of queues."""
    return QueuesBody([status_body(status) for status in statuses])


def listed_ticket_body(ticket: domain.Ticket) -> ListedTicketBody:
    """The body of a ticket in a list."""
    return ListedTicketBody(*_listed(ticket))


def operator_ticket_body(ticket: domain.Ticket) -> OperatorTicketBody:
    """The body of a ticket on the command line."""
    outcome: dict[str, Any] | None = None
    if ticket.claim is not None:
        outcome = {"claim": claim_body(ticket.claim)}
    elif ticket.refusal is not None:
        problem = problem_of(ticket.refusal)
        told = {"type": problem.type, "title": problem.title, "status": problem.status, "detail": problem.meaning}
        outcome = {"problem": told}
    eta_seconds = None if ticket.eta_seconds is None else round(ticket.eta_seconds, 1)
    return OperatorTicketBody(*_listed(ticket), ticket.position, ticket.ahead, eta_seconds, ticket.stopped, outcome)


def _listed(
    ticket: domain.Ticket,
) -> tuple[str, str, str, domain.TicketState, datetime, datetime | None, datetime | None, int]:
    return (
        ticket.id,
        ticket.coupon_name,
        ticket.user_id,
        ticket.state,
        ticket.joined_at,
        ticket.started_at,
        ticket.ended_at,
        ticket.tries,
    )


def dead_letter_body(ticket: domain.Ticket) -> DeadLetterBody:
    """The body of a ticket that is a dead letter."""
    return DeadLetterBody(ticket.id, "ticket", ticket.coupon_name, ticket.user_id, ticket.ended_at, ticket.tries)
