"""Erasing users."""

from typing import Protocol

from claimsvc.domain import (
    Erased,
)


class Erasure(Protocol):
    """Erases users."""

    async def erase(self, user_id: str, *, actor: str, request_id: str | None = None) -> Erased:
        """Replace or delete every occurrence of a user. Counts do not change. The audit entries do not name the user.

        What the user does while this runs may be missed. Safe to repeat: what was erased before a failure stays erased.

        Raises:
            UnavailableError: the database does not answer in time.
        """
        ...
