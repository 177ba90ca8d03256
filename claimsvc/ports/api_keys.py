"""API keys: their digests and scopes."""

from collections.abc import Collection
from typing import Protocol

from claimsvc.domain import (
    ApiKey,
    Scope,
)


class ApiKeys(Protocol):
    """Stores API keys. Every method raises `UnavailableError` when the database does not answer in time."""

    async def create(
        self, digest: bytes, *, label: str, scopes: Collection[Scope], expires_seconds: float | None, actor: str
    ) -> ApiKey:
        """Store a new key, and write an audit entry in the same transaction.

        Args:
            digest: the SHA-256 of the key.
            label: a name for operators.
            scopes: what the key permits.
            expires_seconds: from now; None if the key never expires.
            actor: who creates it, for the audit log.
        """
        ...

    async def revoke(self, key_id: str, *, actor: str) -> bool:
        """Revoke a key, and write an audit entry in the same transaction.

        Returns:
            False if there is no key with that id, or it was already revoked.
        """
        ...

    async def all(self) -> list[ApiKey]:
        """Return all keys, including expired and revoked ones, oldest first."""
        ...

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256; None if it does not exist, has expired or was revoked.

        The result may be cached: a revoked key can be returned for some seconds.
        """
        ...
