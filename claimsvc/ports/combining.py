"""Handing batches of claims to the instance that holds their coupon's lock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Protocol

from claimsvc.domain import Attempt, ClaimOptions
from claimsvc.ports.admission import Admission, Decision


@dataclass(frozen=True)
class HandedBatch:
    """Claims of one coupon that whoever commits first decides, all together, refusals included.

    Their ids and users are lines of text on the whole way from their origin into the holder's statement: a batch of
    plain claims costs the holder nothing for each claim.

    Args:
        id: a UUID of version 7. The batch keeps it wherever it goes, so that it is decided once.
        coupon_name: of all its claims.
        size: number of its claims.
        claim_ids: their ids in the order of their arrival, a line each.
        user_ids: their users, a line each.
        options: their options; empty if none has any.
    """

    id: str
    coupon_name: str
    size: int
    claim_ids: str
    user_ids: str
    options: Sequence[ClaimOptions | None] = ()

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Its claims."""
        return [
            Attempt(claim_id, self.coupon_name, user_id, options)
            for claim_id, user_id, options in zip(
                self.claim_ids.split("\n"),
                self.user_ids.split("\n"),
                self.options or [None] * self.size,
                strict=True,
            )
        ]


@dataclass(frozen=True, slots=True)
class AllClaimed:
    """Every claim of a batch got a unit, at the same time, without a code or a time to confirm."""

    claimed_at: datetime


BatchDecisions = AllClaimed | Sequence[Decision]
"""The decisions on a batch, in the order of its claims."""


class FencedAdmission(Admission, Protocol):
    """Decides handed batches, each at most once. Raises the errors of `Admission`."""

    async def admit_handed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> tuple[list[Decision], list[BatchDecisions | None]]:
        """Decide attempts, and after them batches, in one transaction with a fence.

        Args:
            attempts: claims that were not handed over.
            batches: handed batches, in the order of their arrival.

        Returns:
            The decisions on the attempts; and for each batch its decisions, or None if nothing of it was decided now:
            it was decided before, or is too old to tell, or the database refuses one of the claims.
        """
        ...

    async def withhold(self, batch: HandedBatch) -> bool:
        """Make sure that nobody decides the batch any more. Returns False if it has been decided already."""
        ...

    async def recall(self, batch: HandedBatch) -> list[Decision]:
        """Return what was decided on a batch that another instance has decided.

        A claim of which the database no longer tells has a failure: it may have been refused, or made and ended since.
        """
        ...


class HandOver(Enum):
    """What became of a message for the holder of a lock.

    Attributes:
        SENT: it is on its way.
        FREE: nobody holds the lock.
        RESERVED: nobody holds the lock; an instance has been woken, and will take it.
        HELD: it was not sent, because the lock's holder takes no messages.
        UNKNOWN: the master has not answered, so that it may have been sent.
    """

    SENT = "sent"
    FREE = "free"
    RESERVED = "reserved"
    HELD = "held"
    UNKNOWN = "unknown"


Answer = Callable[[bytes], None]
"""Sends an answer to where a message came from. Never raises: who waits for the answer gives up after a while."""


class Mailbox(Protocol):
    """Receives what arrives for this instance."""

    def arrived(self, sender: str, message: bytes, answer: Answer) -> None:
        """Receive a message of another instance, whose name is `sender`."""
        ...

    def invited(self, coupon_name: str) -> None:
        """Learn that this instance was woken to take a lock, though it does not wait for it."""
        ...


class Post(Protocol):
    """Carries messages between instances. Messages may be lost, doubled and late."""

    def deliver_to(self, mailbox: Mailbox) -> None:
        """Deliver what arrives for this instance to `mailbox`."""
        ...

    async def hand(self, coupon_name: str, message: bytes) -> HandOver:
        """Send a message to the holder of a coupon's lock."""
        ...


class CombineObserver(Protocol):
    """Observes combining."""

    def combined(self, coupon_name: str, role: str, claims: int) -> None:
        """Record claims that were combined: as `origin`, which handed them over, or as `holder`, which decided them."""
        ...

    def combine_waited(self, coupon_name: str, seconds: float) -> None:
        """Record how long a batch was on its way until its answer came."""
        ...

    def taken_back(self, coupon_name: str, found: str) -> None:
        """Record a batch that its origin took back, because no answer came: it was `undecided` or `decided`."""
        ...
