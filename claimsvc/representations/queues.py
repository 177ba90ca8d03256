"""Queues of coupons: giving a coupon one, and showing it."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.representations.fields import MAX_ENTRIES, Request, at_most

RatePerSecond = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_RATE_PER_SECOND,
        description=f"an integer from 1 to {domain.MAX_RATE_PER_SECOND}: how many tickets are started at most within "
        "any second",
        examples=[10],
    ),
]
Concurrency = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_CONCURRENCY,
        description=f"an integer from 1 to {domain.MAX_CONCURRENCY}: how many claims of tickets are under way at most",
        examples=[5],
    ),
]
MaxWaitSeconds = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_QUEUE_WAIT_SECONDS,
        description=f"a number of seconds from 1 to {domain.MAX_QUEUE_WAIT_SECONDS}: how long a ticket waits at most "
        "until it is started",
        examples=[10],
    ),
]
MaxLength = Annotated[
    int,
    Field(
        ge=1,
        le=domain.MAX_QUEUE_LENGTH,
        description=f"an integer from 1 to {domain.MAX_QUEUE_LENGTH}: how many tickets wait at most",
        examples=[100],
    ),
]
Order = Annotated[
    domain.QueueOrder,
    Field(
        strict=False,
        description="`fifo` (tickets are started in the order in which they joined) or `draw` (the order of those who "
        "join before `starts_at` is drawn by lot)",
        examples=["fifo"],
    ),
]


class QueueSettings(Request):
    """The queue of a coupon: its claims wait in it, and are started at this pace."""

    rate_per_second: RatePerSecond
    concurrency: Concurrency
    max_wait_seconds: MaxWaitSeconds
    max_length: MaxLength
    order: Order = domain.QueueOrder.FIFO

    def queue(self) -> domain.Queue:
        """The queue as a domain value."""
        return domain.Queue(self.rate_per_second, self.concurrency, self.max_wait_seconds, self.max_length, self.order)


CouponQueue = Annotated[
    QueueSettings,
    Field(
        description="an object with `rate_per_second`, `concurrency`, `max_wait_seconds` and `max_length`",
        examples=[{"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100}],
    ),
    at_most(MAX_ENTRIES),
]


class WaitingListSettings(Request):
    """Lets claims of a sold-out coupon wait for units that come back."""

    hold_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=domain.MAX_HOLD_SECONDS,
            description=f"an integer from 1 to {domain.MAX_HOLD_SECONDS}: for how long a unit that comes back is held "
            "for the first who waits, who confirms the claim in that time",
            examples=[600],
        ),
    ] = 600


def _settings_of(value: Any) -> Any:
    """Take `true` for the usual settings."""
    return {} if value is True else value


WaitingList = Annotated[
    WaitingListSettings,
    BeforeValidator(_settings_of),
    Field(
        description="an object with `hold_seconds`, or true for 600 of them",
        examples=[{"hold_seconds": 600}],
    ),
    at_most(MAX_ENTRIES),
]


@dataclass(frozen=True, slots=True)
class WaitingListBody:
    """The waiting list of a coupon: once it is sold out, claims may wait for units that come back."""

    hold_seconds: Annotated[int, Field(ge=1, le=domain.MAX_HOLD_SECONDS, examples=[600])]


def waiting_list_body(hold_seconds: int | None) -> WaitingListBody | None:
    """The body of a coupon's waiting list; None if it has none."""
    return None if hold_seconds is None else WaitingListBody(hold_seconds)


@dataclass(frozen=True, slots=True)
class QueueBody:
    """The queue in which the claims of a coupon wait."""

    rate_per_second: RatePerSecond
    concurrency: Concurrency
    max_wait_seconds: MaxWaitSeconds
    max_length: MaxLength
    order: Order


def queue_body(queue: domain.Queue | None) -> QueueBody | None:
    """The body of a coupon's queue; None if it has none."""
    if queue is None:
        return None
    return QueueBody(queue.rate_per_second, queue.concurrency, queue.max_wait_seconds, queue.max_length, queue.order)
