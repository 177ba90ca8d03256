"""API keys: created, revoked, listed, and found by the digest of the key in a request."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

from claimsvc.domain import ApiKey, Scope
from claimsvc.postgres.audit import insert_entry
from claimsvc.postgres.database import Database

_ID_BYTES = 6
# For how long an instance caches a look-up, and so may accept a key that was revoked meanwhile.
FRESH_SECONDS = 5.0
# The size of the cache, unknown digests included. Random digests evict each other and cost one look-up each.
_MOST_REMEMBERED = 1000

_COLUMNS = "id, label, scopes, created_at, expires_at, revoked_at"

# Each change and its audit entry are one statement, and so one transaction.
_CREATE = f"""
WITH created AS (
    INSERT INTO api_keys (id, digest, label, scopes, expires_at)
    VALUES (
        %(id)s, %(digest)s, %(label)s, %(scopes)s,
        clock_timestamp() + make_interval(secs => %(expires_seconds)s::float8)
    )
    RETURNING {_COLUMNS}
), audited AS (
    {
    insert_entry(
        "created",
        action="'key.create'",
        subject_type="'key'",
        subject="id",
        reason="''",
        request_id="NULL",
        details="jsonb_build_object('label', label, 'scopes', to_jsonb(scopes), 'expires_at', expires_at)",
    )
}
)
SELECT * FROM created
"""  # noqa: S608 - of constants

_REVOKE = f"""
WITH revoked AS (
    UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = %(id)s AND revoked_at IS NULL RETURNING id, label
), audited AS (
    {
    insert_entry(
        "revoked",
        action="'key.revoke'",
        subject_type="'key'",
        subject="id",
        reason="''",
        request_id="NULL",
        details="jsonb_build_object('label', label)",
    )
}
)
SELECT id FROM revoked
"""  # noqa: S608 - of constants

_ALL = f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id"  # noqa: S608 - of constants

_OF_DIGEST = f"""
SELECT {_COLUMNS}, extract(epoch FROM expires_at - clock_timestamp())::float8 AS seconds_left
FROM api_keys
WHERE digest = %(digest)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""  # noqa: S608 - of constants


class PostgresKeys:
    """`ports.ApiKeys` on PostgreSQL.

    Args:
        database: where statements run.
        fresh_seconds: for how long a look-up is cached.
    """

    def __init__(self, database: Database, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._database = database
        self._fresh_seconds = fresh_seconds
        # By digest: when the look-up expires, in monotonic seconds, and the key.
        self._cache: OrderedDict[bytes, tuple[float, ApiKey | None]] = OrderedDict()

    async def create(
        self, digest: bytes, *, label: str, scopes: Collection[Scope], expires_seconds: float | None, actor: str
    ) -> ApiKey:
        values = {
            "id": secrets.token_hex(_ID_BYTES),
            "digest": digest,
            "label": label,
            "scopes": sorted(scope.value for scope in scopes),
            "expires_seconds": expires_seconds,
            "actor": actor,
        }
        [row] = await self._database.write_once(_CREATE, values)
        return _key(row)

    async def revoke(self, key_id: str, *, actor: str) -> bool:
        return bool(await self._database.write_once(_REVOKE, {"id": key_id, "actor": actor}))

    async def all(self) -> list[ApiKey]:
        return [_key(row) for row in await self._database.fetch_dicts(_ALL)]

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        now = time.monotonic()
        cached = self._cache.get(digest)
        if cached is not None and now < cached[0]:
            return cached[1]
        rows = await self._database.fetch_dicts(_OF_DIGEST, {"digest": digest})
        key, fresh_seconds = None, self._fresh_seconds
        if rows:
            key = _key(rows[0])
            if rows[0]["seconds_left"] is not None:
                fresh_seconds = min(fresh_seconds, rows[0]["seconds_left"])
        self._cache[digest] = now + fresh_seconds, key
        self._cache.move_to_end(digest)
        while len(self._cache) > _MOST_REMEMBERED:
            self._cache.popitem(last=False)
        return key


def _key(row: Mapping[str, Any]) -> ApiKey:
    known = frozenset(scope for scope in Scope if scope.value in row["scopes"])
    return ApiKey(row["id"], row["label"], known, row["created_at"], row["expires_at"], row["revoked_at"])
