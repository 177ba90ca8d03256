"""Deciding claims."""

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
        """Decide attempts in their order, and return when the decisions are committed.

        Correct with any number of concurrent callers, with or without the lock. A user who holds a claim gets
        `AlreadyClaimed` and takes no stock; a user who appears twice in `attempts` is admitted once.

        Args:
            attempts: of one coupon or several.

        Returns:
            One decision for each attempt, in their order. An attempt that the database refuses to write gets its own
            failure, and the others are still decided.
        """
        ...

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        """Return what the attempts would result in now, in their order, without deciding them.

        Takes no lock. The result is None, never `Claimed`, for an attempt that would have to be decided: usually, the
        user has no claim and units are left.
        """
        ...
