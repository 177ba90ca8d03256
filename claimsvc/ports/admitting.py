"""Who asks, and how often they may."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from claimsvc.domain import (
    ApiKey,
    Quota,
    QuotaStanding,
    Scope,
    TokenRefused,
    TokenUser,
)


class ApiKeys(Protocol):
    """Keys of those who may do what not everybody may. Each method raises `UnavailableError` without the database."""

    async def create(
        self, digest: bytes, *, label: str, scopes: Collection[Scope], expires_seconds: float | None, actor: str
    ) -> ApiKey:
        """Keep a key that was made, by its SHA-256. It is audited in the same transaction."""
        ...

    async def revoke(self, key_id: str, *, actor: str) -> bool:
        """End a key, and audit it; whether there was one of that id that had not been revoked."""
        ...

    async def all(self) -> list[ApiKey]:
        """Every key there ever was, oldest first."""
        ...

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        """The key with this SHA-256; None if there is none, or it has expired or was revoked.

        What it says of revoking may be some seconds old.
        """
        ...


class Tokens(Protocol):
    """Users' tokens."""

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        """Whom a token is for. It is looked at closely, and nothing of it is believed before its signature is."""
        ...


class Quotas(Protocol):
    """How often somebody may ask, for as long as that can be learnt: whatever cannot is let through."""

    @property
    def quotas(self) -> Sequence[Quota]:
        """Those that there are."""
        ...

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        """Count a request, unless a quota is exceeded. It raises nothing, and waits for nothing that is late.

        Args:
            subjects: whose request it is, by the names of the quotas.

        Returns:
            How the subjects stand, without those of whom that cannot be learnt. The first quota that is exceeded is the
            last one that was asked about.
        """
        ...
