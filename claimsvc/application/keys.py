"""API keys: making, listing and revoking them."""

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
    """Keep a key.

    Args:
        digest: its SHA-256.
        label: what it is for; listings and the audit show it.
        scopes: what it allows.
        expires_seconds: how long it is valid; None for ever.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    return await keys.create(digest, label=label, scopes=scopes, expires_seconds=expires_seconds, actor=caller.actor)


async def every(keys: ApiKeys) -> list[ApiKey]:
    """List every key that was ever made, oldest first. Raises `UnavailableError`."""
    return await keys.all()


async def revoke(keys: ApiKeys, caller: Caller, key_id: str) -> bool:
    """End a key; whether there was one to end. Raises `UnavailableError`."""
    return await keys.revoke(key_id, actor=caller.actor)
