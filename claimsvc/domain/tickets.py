"""Tickets: claims that wait in the queue of a coupon. Their states, and what joining, reading and leaving result in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from claimsvc.domain.claims import Claim, ClaimOptions, TicketLease
from claimsvc.domain.outcomes import ClaimOutcome, Outcome, Refusal, outcome, refusal

MAX_RATE_PER_SECOND = 1000
MAX_CONCURRENCY = 1000
MAX_QUEUE_WAIT_SECONDS = 86_400
MAX_QUEUE_LENGTH = 1_000_000


class QueueOrder(StrEnum):
    """In which order tickets are started."""

    FIFO = "fifo"
    # Who joins before the coupon starts is drawn by lot at its start; who joins later comes first in, first out.
    DRAW = "draw"


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue of a coupon.

    Args:
        rate_per_second: how many tickets are started at most within any second, over all instances.
        concurrency: how many claims of tickets are under way at most, over all instances.
        max_wait_seconds: how long a ticket waits at most until it is started; then it is expired.
        max_length: how many tickets wait at most.
        order: in which order they are started.
    """

    rate_per_second: int
    concurrency: int
    max_wait_seconds: int
    max_length: int
    order: QueueOrder = QueueOrder.FIFO


USUAL_QUEUE = Queue(rate_per_second=1000, concurrency=64, max_wait_seconds=300, max_length=100_000)
"""The queue of claims that are made with `Prefer: respond-async` where the coupon has none of its own."""


MOST_TRIES = 12
"""How often the claim of a ticket is begun before it becomes a dead letter: within some six minutes."""


class TicketState(StrEnum):
    """The state of a ticket. All but the first two are ends, and final."""

    WAITING = "waiting"
    # Its claim is being made, or is tried again after a failure of the service.
    STARTED = "started"
    CLAIMED = "claimed"
    REFUSED = "refused"
    EXPIRED = "expired"
    LEFT = "left"
    # The service failed too often to decide it. An operator requeues or discards it.
    DEAD = "dead"

    @property
    def is_end(self) -> bool:
        """Whether it never changes again, unless an operator requeues a dead ticket."""
        return self not in (TicketState.WAITING, TicketState.STARTED)


STALLED_SECONDS = 10.0
"""A queue that has started no ticket for longer stands still."""

TICKET_ENDS = tuple(state for state in TicketState if state.is_end)


class QueueStop(StrEnum):
    """Why no ticket of a queue is started now."""

    # By an operator, or because the coupon is paused.
    PAUSED = "paused"
    # The coupon cannot be claimed yet.
    NOT_STARTED = "not-started"
    # The coupon is sold out: they wait for units that come back.
    SOLD_OUT = "sold-out"
    # A database or a majority of the masters does not answer; it goes on by itself.
    UNAVAILABLE = "unavailable"


@dataclass(slots=True, unsafe_hash=True)  # not frozen: see `Claim`
class Ticket:
    """A claim that waits for its turn. Never changed.

    Args:
        id: a UUID (version 7) in its usual text form.
        joined_at: by the database's clock, like all times here.
        ahead: how many tickets wait before it; None unless it waits.
        eta_seconds: when it is started at the pace of late; None unless it waits, and while the queue is stopped.
        stopped: why no ticket of its queue is started now; None if they are, or it has ended.
        tries: how often its claim was begun.
        claim: its claim, once it is claimed, as it is now.
        refusal: why it was refused, once it is.
        place: numbers the tickets of the coupon in the order in which they are started.
    """

    id: str
    coupon_name: str
    user_id: str
    state: TicketState
    joined_at: datetime
    ahead: int | None = None
    eta_seconds: float | None = None
    stopped: QueueStop | None = None
    tries: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    claim: Claim | None = None
    # A `ClaimOutcome`. Not typed as one, because tickets are stored as answers, and these have none.
    refusal: Any = None
    place: int = 0

    @property
    def position(self) -> int | None:
        """Its place in the queue, from 1; 0 once it is started; None once it has ended. It never grows."""
        if self.state is TicketState.STARTED:
            return 0
        return None if self.ahead is None else self.ahead + 1


@dataclass(frozen=True, slots=True)
class StartedTicket:
    """A ticket whose claim is to be made now, by whoever has leased it."""

    lease: TicketLease
    coupon_name: str
    user_id: str
    options: ClaimOptions
    joined_at: datetime
    started_at: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue at one moment.

    Args:
        queue: its settings; those of `USUAL_QUEUE` if the coupon has none of its own.
        waiting: tickets that wait.
        started: tickets whose claims are under way, or are tried again.
        dead: dead letters.
        pace: starts a second of late.
        oldest_joined_at: when the first that waits has joined.
        dispatcher: the instance that started the last tickets; None if nobody did.
        dispatched_at: when that was.
    """

    coupon_name: str
    queue: Queue
    waiting: int
    started: int
    dead: int
    pace: float
    stopped: QueueStop | None
    is_paused: bool
    oldest_joined_at: datetime | None
    dispatcher: str | None
    dispatched_at: datetime | None

    def waited_seconds(self, now: datetime) -> float:
        """Return how long the first ticket has waited; 0 if none waits. `now` is by the database's clock."""
        if not self.waiting or self.oldest_joined_at is None:
            return 0.0
        return max(0.0, (now - self.oldest_joined_at).total_seconds())

    def stalled_seconds(self, now: datetime) -> float:
        """Return for how long tickets have waited and none was started, though nobody wanted that; 0 otherwise.

        A queue starts at least one ticket a second, and a claim ends within seconds. So one that has started none for
        longer than `STALLED_SECONDS` stands still, even while as many claims are under way as it allows. What stops it
        by itself is no excuse, because that is over within seconds as well.
        """
        if self.is_paused or self.stopped in (QueueStop.PAUSED, QueueStop.NOT_STARTED, QueueStop.SOLD_OUT):
            return 0.0
        waited = self.waited_seconds(now)
        if self.dispatched_at is None:
            return waited
        return max(0.0, min(waited, (now - self.dispatched_at).total_seconds()))


def seed_hash(seed: bytes) -> str:
    """Return what is published of a seed before the draw: its SHA-256 digest, in hex."""
    return sha256(seed).hexdigest()


def draw_entry(ticket_id: str) -> str:
    """Return the entry of a ticket in a draw, in hex: who has a ticket finds it, nobody else learns of the ticket."""
    return sha256(ticket_id.encode()).hexdigest()


def draw_order(seed: bytes, entries: Iterable[str]) -> list[str]:
    """Return the entries of a draw in the order in which they were drawn: that of SHA-256 of the seed and the entry.

    Args:
        seed: as it is published after the draw.
        entries: see `draw_entry`.
    """
    return sorted(entries, key=lambda entry: sha256(seed + bytes.fromhex(entry)).digest())


@dataclass(frozen=True, slots=True)
class Draw:
    """The draw of a queue with `order: "draw"`.

    Args:
        seed_hash: the digest of the seed, published when the coupon gets the queue; see `seed_hash`.
        seed: None until the draw.
        drawn_at: when the order was drawn; None before that.
        entries: one page of those that were drawn, in order.
        position: of the first of them, from 1.
    """

    coupon_name: str
    seed_hash: str
    seed: bytes | None
    drawn_at: datetime | None
    entries: Sequence[str]
    position: int


@refusal(
    "no-draw",
    404,
    "No draw",
    "The coupon has no queue with `order: draw`, or there is no coupon of that name.",
    "Check the name, and the coupon's `queue`.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class NoDraw(Refusal):
    """The coupon's order is not drawn by lot."""


@dataclass(frozen=True, slots=True)
class QueueProgress:
    """What all tickets of a queue have in common at one moment, for those who watch them.

    Args:
        pace: starts a second of late; None if that is not known yet.
        rate_per_second: the most starts a second.
        stopped: why no ticket is started now.
        blocks: how many tickets wait in each block of places, by its number, in order.
    """

    pace: float | None
    rate_per_second: int
    stopped: QueueStop | None
    blocks: Mapping[int, int] = field(hash=False)


PLACES_IN_A_BLOCK = 256
"""How many places of a queue are counted together."""


@outcome("queued", seen_as="queued", uses_up=True)
@dataclass(slots=True, unsafe_hash=True)  # not frozen: see `Claim`
class Queued(ClaimOutcome):
    """The claim waits in the coupon's queue: by this request, or by an earlier one of the user."""

    ticket: Ticket


@refusal(
    "queue-full",
    429,
    "The queue is full",
    "As many wait for this coupon as its queue allows, or as there are units left; nothing was done.",
    "Retry after `Retry-After` seconds: places become free when tickets are started.",
    is_stored=False,
    seen_as="queue-full",
)
@dataclass(frozen=True, slots=True)
class QueueFull(ClaimOutcome, Refusal):
    """No more may wait; `retry_seconds` is when a place is likely to be free."""

    retry_seconds: int


@outcome("waits-for-units", is_stored=False, seen_as="waits-for-units")
@dataclass(frozen=True, slots=True)
class WaitsForUnits(ClaimOutcome):
    """No unit was left for the ticket, and it waits for one that comes back; it has not ended."""


@outcome("lease-lost", is_stored=False, seen_as="lease-lost")
@dataclass(frozen=True, slots=True)
class LeaseLost(ClaimOutcome):
    """The ticket was leased to somebody else meanwhile, or has ended; nothing was done."""


@refusal(
    "unknown-ticket",
    404,
    "Unknown ticket",
    "There is no ticket of that id, or it ended more than a day ago.",
    "Use the `id` from the 202 response.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class UnknownTicket(Refusal):
    """There is no ticket with that id."""


@refusal(
    "ticket-started",
    409,
    "Too late to leave",
    "The claim of this ticket has begun or ended, so the ticket cannot leave the queue; `ticket` is it.",
    "Read the ticket. A claim that was made can be cancelled.",
)
@dataclass(frozen=True, slots=True)
class TicketStarted(Refusal):
    """The ticket does not wait any more, so it cannot leave."""

    ticket: Ticket


@outcome("left-queue")
@dataclass(frozen=True, slots=True)
class LeftQueue(Outcome):
    """The ticket has left its queue: by this request if `is_new`, or by an earlier one."""

    ticket: Ticket
    # Repeating the request results in the same.
    is_new: bool = field(default=False, compare=False)


@refusal(
    "ticket-not-dead",
    409,
    "Not a dead letter",
    "The ticket is not a dead letter, so it can be neither requeued nor discarded.",
    "Read the ticket.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class TicketNotDead(Refusal):
    """The ticket is not a dead letter."""


@refusal(
    "ticket-replaced",
    409,
    "The user waits again",
    "The user has joined the queue again since, and has one ticket at a time, so this dead letter cannot be requeued.",
    "Discard it.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class TicketReplaced(Refusal):
    """The user of the dead ticket has another one, which waits or is started."""


@outcome("queue-changed")
@dataclass(frozen=True, slots=True)
class QueueChanged(Outcome):
    """The queue is paused, or goes on: by this request, or by an earlier one."""

    status: QueueStatus


@outcome("ticket-requeued")
@dataclass(frozen=True, slots=True)
class TicketRequeued(Outcome):
    """The claim of a dead ticket is tried again."""

    ticket: Ticket


@outcome("ticket-discarded")
@dataclass(frozen=True, slots=True)
class TicketDiscarded(Outcome):
    """A dead ticket is no longer a dead letter: it has left."""

    ticket: Ticket


@dataclass(slots=True, unsafe_hash=True)  # not frozen: see `Claim`
class JoinRequest:
    """A claim that is to wait in a queue. Never changed.

    Its id is made by the caller, so that a repetition recognizes its ticket.

    Args:
        ticket_id: the id that the ticket gets if the user has none that waits.
        options: those of the claim.
        is_eligible: whether it is known that a claim would be refused for no other reason than that the coupon is
            sold out, so that it may wait for units that come back.
    """

    ticket_id: str
    user_id: str
    options: ClaimOptions | None = None
    is_eligible: bool = False
