"""Keys with scopes: made, revoked, listed, and found by the digest of what a request carries."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, text

from claimsvc.domain import ApiKey, Scope
from claimsvc.postgres.connections import UnitOfWork, database_failures, unavailable
from claimsvc.postgres.database import Database

_ID_BYTES = 6
# How long a key that was revoked may still be believed by an instance that has just seen it.
FRESH_SECONDS = 5.0
# Digests remembered, also those of no key: made-up ones push each other out, and cost a look-up each.
_MOST_REMEMBERED = 1000

_COLUMNS = "id, label, scopes, created_at, expires_at, revoked_at"

# The deed and its entry in the audit are one statement each, and so one transaction.
_CREATE = text(f"""
WITH made AS (
    INSERT INTO api_keys (id, digest, label, scopes, expires_at)
    VALUES (:id, :digest, :label, :scopes, clock_timestamp() + make_interval(secs => cast(:expires_seconds AS float8)))
    RETURNING {_COLUMNS}
), noted AS (
    INSERT INTO audit (actor, action, subject_type, subject, details)
    SELECT :actor, 'key.create', 'key', id,
        jsonb_build_object('label', label, 'scopes', to_jsonb(scopes), 'expires_at', expires_at)
    FROM made
)
SELECT * FROM made
""")  # noqa: S608 - the columns are ours

_REVOKE = text("""
WITH ended AS (
    UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = :id AND revoked_at IS NULL RETURNING id, label
), noted AS (
    INSERT INTO audit (actor, action, subject_type, subject, details)
    SELECT :actor, 'key.revoke', 'key', id, jsonb_build_object('label', label) FROM ended
)
SELECT id FROM ended
""")

_ALL = text(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id")  # noqa: S608 - the columns are ours

_OF_DIGEST = text(f"""
SELECT {_COLUMNS}, extract(epoch FROM expires_at - clock_timestamp())::float8 AS seconds_left
FROM api_keys
WHERE digest = :digest AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
""")  # noqa: S608 - the columns are ours


class PostgresKeys:
    """`ports.ApiKeys` on PostgreSQL.

    Args:
        database: where statements run.
        fresh_seconds: how long what was found of a digest is believed.
    """

    def __init__(self, database: Database, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._database = database
        self._fresh_seconds = fresh_seconds
        # By digest: until when it is believed, by the monotonic clock, and what it is the digest of.
        self._found: OrderedDict[bytes, tuple[float, ApiKey | None]] = OrderedDict()

    async def create(
        self, digest: bytes, *, label: str, scopes: Collection[Scope], expires_seconds: float | None, actor: str
    ) -> ApiKey:
        values = {
            "id": secrets.token_hex(_ID_BYTES),
            "digest": digest,
            "label": label,
            "scopes": sorted(scopes),
            "expires_seconds": expires_seconds,
            "actor": actor,
        }
        [row] = await self._write(_CREATE, values)
        return _key(row)

    async def revoke(self, key_id: str, *, actor: str) -> bool:
        return bool(await self._write(_REVOKE, {"id": key_id, "actor": actor}))

    async def all(self) -> list[ApiKey]:
        return [_key(row) for row in await self._read(_ALL, {})]

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        asked_at = time.monotonic()
        known = self._found.get(digest)
        if known is not None and asked_at < known[0]:
            return known[1]
        rows = await self._read(_OF_DIGEST, {"digest": digest})
        key, fresh_seconds = None, self._fresh_seconds
        if rows:
            key = _key(rows[0])
            if rows[0].seconds_left is not None:
                fresh_seconds = min(fresh_seconds, rows[0].seconds_left)
        self._found[digest] = asked_at + fresh_seconds, key
        self._found.move_to_end(digest)
        while len(self._found) > _MOST_REMEMBERED:
            self._found.popitem(last=False)
        return key

    async def _read(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        async def ask(unit: UnitOfWork) -> Sequence[Row[Any]]:
            return (await unit.connection.execute(statement, parameters)).all()

        return await self._database.read(ask)

    async def _write(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        try:
            async with self._database.unit_of_work() as unit:
                return (await unit.connection.execute(statement, parameters)).all()
        except database_failures as error:
            raise unavailable(error) from error


def _key(row: Row[Any]) -> ApiKey:
    known = frozenset(scope for scope in Scope if scope.value in row.scopes)
    return ApiKey(row.id, row.label, known, row.created_at, row.expires_at, row.revoked_at)
