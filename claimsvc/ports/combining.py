"""Handing batches of claims to the instance that holds their coupon's lock."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from claimsvc.domain import Attempt
from claimsvc.ports.admission import Admission, Decision


@dataclass(frozen=True, slots=True)
class HandedBatch:
    """Claims of one coupon that whoever commits first decides, all together, refusals included.

    Args:
        id: a UUID of version 7. The batch keeps it wherever it goes, so that it is decided once.
        attempts: its claims, in the order of their arrival.
    """

    id: str
    coupon_name: str
    attempts: Sequence[Attempt]


class FencedAdmission(Admission, Protocol):
    """Decides handed batches, each at most once. Raises the errors of `Admission`."""

    async def admit_handed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> tuple[list[Decision], list[list[Decision] | None]]:
        """Decide attempts, and after them batches, in one transaction with a fence.

        Args:
            attempts: claims that were not handed over.
            batches: handed batches, in the order of their arrival.

        Returns:
            The decisions on the attempts; and for each batch its decisions, or None if it was decided before, or is too
            old to tell, so that nothing of it was decided now.
        """
        ...

    async def recall(self, batch: HandedBatch) -> list[Decision]:
        """Return what was decided on a batch that another instance has decided."""
        ...

    async def withhold(self, batch: HandedBatch) -> bool:
        """Make sure that nobody decides the batch any more. Returns False if it has been decided already."""
        ...


Sender = object
"""Where an answer goes to; only the post that delivered a message knows more."""


class Parcel(Protocol):
    """A message on its way."""

    async def withdraw(self) -> bool:
        """Take the message back. Returns whether it certainly had not been taken by the holder."""
        ...


Deliver = Callable[[Sender, bytes], None]


class Post(Protocol):
    """Carries messages between instances. Messages may be lost, doubled and late."""

    def deliver_to(self, deliver: Deliver) -> None:
        """Call `deliver` for each message that arrives for this instance."""
        ...

    async def hand(self, coupon_name: str, message: bytes) -> Parcel | None:
        """Hand a message to the holder of a coupon's lock. Returns None, and sends nothing, if no holder takes any."""
        ...

    def answer(self, sender: Sender, instance: str, message: bytes) -> Coroutine[None, None, None]:
        """Send an answer to the instance that a message came from. Never raises: the instance gives up waiting."""
        ...
