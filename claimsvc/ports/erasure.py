"""Forgetting users."""

from typing import Protocol

from claimsvc.domain import (
    Erased,
)


class Erasure(Protocol):
    """Forgetting users."""

    async def erase(self, user_id: str, *, actor: str, request_id: str | None = None) -> Erased:
        """Have nothing name this user any more, and keep all counts. It is audited, without the user.

        What the user does meanwhile may be left over, and whatever is done before this fails stays done: it is safe to
        ask again.

        Raises:
            UnavailableError: the database does not answer in time.
        """
        ...
