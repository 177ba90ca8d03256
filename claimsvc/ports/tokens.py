"""Users' tokens."""

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

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        """Verify a token and return its user, or why it is refused. Its claims are used only after its signature."""
        ...
