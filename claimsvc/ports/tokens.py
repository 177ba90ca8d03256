"""Users' tokens."""

import asyncio
from typing import Protocol

from claimsvc.domain import (
    TokenRefused,
    TokenUser,
)


class Tokens(Protocol):
    """Verifies users' tokens."""

    def user_at_hand(self, token: str) -> TokenUser | TokenRefused | None:
        """The result of `user_of`; None if the token is signed with an unknown key, so that the keys must be read."""
        ...

    def user_soon(self, token: str) -> "TokenUser | TokenRefused | asyncio.Future[TokenUser | TokenRefused] | None":
        """As `user_at_hand`; a future if the token is verified together with others that arrive now.

        The future is done soon, without reading anything, and may be left alone.
        """
        ...

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        """Verify a token and return its user, or why it is refused. Its claims are used only after its signature."""
        ...
