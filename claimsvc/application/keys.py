"""API keys: creating, listing and revoking them."""

from collections.abc import Collection

from claimsvc.domain import ApiKey, Caller, Scope
from claimsvc.ports import ApiKeys


async def create(
    keys: ApiKeys,
    caller: Caller,
    digest: bytes,
    *,
    label: str,
    scopes: Collection[Scope],
    expires_seconds: float | None,
) -> ApiKey:
    """Store a new key.

    Args:
        keys: stores keys.
        caller: named in the audit.
        digest: the key's SHA-256; the key itself is not stored.
        label: the purpose of the key, shown in lists and the audit.
        scopes: the key's scopes.
        expires_seconds: how long the key is valid; None for ever.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    return await keys.create(digest, label=label, scopes=scopes, expires_seconds=expires_seconds, actor=caller.actor)


async def every(keys: ApiKeys) -> list[ApiKey]:
    """List all keys, also expired and revoked ones, oldest first. Raises `UnavailableError`."""
    return await keys.all()


async def revoke(keys: ApiKeys, caller: Caller, key_id: str) -> bool:
    """Revoke a key. Returns False if there is no such valid key. Raises `UnavailableError`."""
    return await keys.revoke(key_id, actor=caller.actor)
