"""Deciding who gets a unit."""

from collections.abc import Sequence
from typing import Protocol

from claimsvc.domain import Attempt, ClaimOutcome
from claimsvc.errors import ClaimsvcError

Decision = ClaimOutcome | ClaimsvcError
"""The result of one attempt of a batch: its outcome, or the failure of this attempt alone."""


class Admission(Protocol):
    """Decides claims. PostgreSQL alone decides who gets a unit.

    Both methods raise `UnavailableError` when the database does not answer in time.
    """

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide attempts, of one coupon or several, in one transaction and in their order.

        Returns the decisions in that order, once they are committed. An attempt that cannot be written gets its own
        failure, and the others are decided all the same.

        Correct with any number of concurrent callers, whether they hold the lock or not. A user who holds a claim gets
        `AlreadyClaimed` and takes no stock; a user who appears twice in `attempts` is admitted once.
        """
        ...

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        """Read what the attempts would result in, without deciding them, in their order.

        Never `Claimed`: None stands for a user without a claim while units are left. Takes no lock.
        """
        ...
