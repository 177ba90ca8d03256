"""Users' tokens."""

from typing import Protocol

from claimsvc.domain import (
    TokenRefused,
    TokenUser,
)


class Tokens(Protocol):
    """Verifies users' tokens."""

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        """Verify a token and return its user, or why it is refused. Its claims are used only after its signature."""
        ...
