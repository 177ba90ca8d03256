"""Users' tokens."""

from typing import Protocol

from claimsvc.domain import (
    TokenRefused,
    TokenUser,
)


class Tokens(Protocol):
    """Users' tokens."""

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        """Whom a token is for. It is looked at closely, and nothing of it is believed before its signature is."""
        ...
