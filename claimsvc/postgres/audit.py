"""The audit log. An entry is written in the transaction of the change it records, so both are committed or neither.

No entry names a user, because entries never change and users may request erasure. Claims made by the fast path have no
entry: their own row has the same information, and a second row would cost more than the claim itself.
"""

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from claimsvc.domain import AuditEntry, AuditFilter, AuditPosition
from claimsvc.postgres.database import Database


def insert_entry(
    source: str = "",
    *,
    actor: str = "%(actor)s",
    action: str = "%(action)s",
    subject_type: str = "%(subject_type)s",
    subject: str = "%(subject)s",
    reason: str = "%(reason)s",
    request_id: str = "%(request_id)s",
    details: str = "%(details)s",
) -> str:
    """Return the statement that writes an entry for each row of `source`, or one entry without a source.

    Every argument is an SQL expression; the defaults refer to the parameters of `parameters_of`.
    """
    return f"""
    INSERT INTO audit (actor, action, subject_type, subject, reason, request_id, details)
    SELECT {actor}, {action}, {subject_type}, {subject}, {reason}, {request_id}, {details} {source and "FROM " + source}
    """


def insert_entry_of_claims(source: str, action: str, *, actor: str, request_id: str = "NULL") -> str:
    """Return the statement that writes an entry for each claim of `source` (columns `id` and `coupon_name`)."""
    return insert_entry(
        source,
        actor=actor,
        action=f"'{action}'",
        subject_type="'claim'",
        subject="id::text",
        reason="''",
        request_id=request_id,
        details="jsonb_build_object('coupon_name', coupon_name)",
    )


INSERT_ENTRY = insert_entry()


def parameters_of(entry: AuditEntry) -> dict[str, Any]:
    """Return the parameters of `INSERT_ENTRY`."""
    return {
        "actor": entry.actor,
        "action": entry.action,
        "subject_type": entry.subject_type,
        "subject": entry.subject,
        "reason": entry.reason,
        "request_id": entry.request_id,
        "details": Jsonb(dict(entry.details)),
    }


_ENTRIES = "SELECT id, at, actor, action, subject_type, subject, reason, request_id, details FROM audit"
# Most claims have no stored entry of their creation, so it is derived from their row.
_CLAIM_CREATION = """
UNION ALL
SELECT 0, claimed_at, 'claimant', 'claim.make', 'claim', id::text, '', NULL,
    jsonb_build_object('coupon_name', coupon_name)
FROM user_claims WHERE id = %(claim_id)s
"""
_CONDITIONS = {
    "subject_type": "subject_type = %(subject_type)s",
    "subject": "subject = %(subject)s",
    "actor": "actor = %(actor)s",
    "action": "action = %(action)s",
    "since": "at >= %(since)s",
    "after_id": "(at, id) < (%(after_at)s, %(after_id)s::bigint)",
}


class PostgresAuditLog:
    """`ports.AuditLog` on PostgreSQL.

    Args:
        database: where entries are written.
        reads: where they are read; `database` if None.
    """

    def __init__(self, database: Database, *, reads: Database | None = None) -> None:
        self._database = database
        self._reads = reads or database

    async def record(self, entry: AuditEntry) -> None:
        await self._database.write_once(INSERT_ENTRY, parameters_of(entry))

    async def entries(self, wanted: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        statement, values = _entries_query(wanted, after, limit)
        return [AuditEntry(**row) for row in await self._reads.fetch_dicts(statement, values)]


def _entries_query(wanted: AuditFilter, after: AuditPosition | None, limit: int) -> tuple[str, dict[str, Any]]:
    """Return the statement that reads entries, and its parameters."""
    values: dict[str, Any] = {
        "subject_type": wanted.subject_type,
        "subject": wanted.subject,
        "actor": wanted.actor,
        "action": wanted.action,
        "since": wanted.since,
        "after_at": after.at if after is not None else None,
        "after_id": after.id if after is not None else None,
        "claim_id": _claim_id(wanted),
        "limit": limit,
    }
    values = {name: value for name, value in values.items() if value is not None}
    source = f"{_ENTRIES} {_CLAIM_CREATION}" if "claim_id" in values else _ENTRIES
    conditions = " AND ".join(condition for name, condition in _CONDITIONS.items() if name in values)
    statement = f"""
        SELECT * FROM ({source}) AS entry {f"WHERE {conditions}" if conditions else ""}
        ORDER BY at DESC, id DESC LIMIT %(limit)s
    """  # noqa: S608 - of constants
    return statement, values


def _claim_id(wanted: AuditFilter) -> UUID | None:
    if wanted.subject_type != "claim" or wanted.subject is None:
        return None
    try:
        return UUID(wanted.subject)
    except ValueError:
        return None
