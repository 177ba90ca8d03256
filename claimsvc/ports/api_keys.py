"""API keys: their digests and scopes."""

from collections.abc import Collection
from typing import Protocol

from claimsvc.domain import (
    ApiKey,
    Scope,
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
