"""The audit: entries written in the transaction of what they tell of, so that both are kept or neither; and read.

No entry names a user, because none is ever changed, and users can ask to be forgotten. Most claims have no entry of
their making: their own row says as much, and a second one for each would cost more than the claim's own statement.
"""

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from claimsvc.domain import AuditEntry, AuditFilter, AuditPosition

AUDIT = """
INSERT INTO audit (actor, action, subject_type, subject, reason, request_id, details)
VALUES (%(actor)s, %(action)s, %(subject_type)s, %(subject)s, %(reason)s, %(request_id)s, %(details)s)
"""


def audited(entry: AuditEntry) -> dict[str, Any]:
    """The parameters of `AUDIT`."""
    return {
        "actor": entry.actor,
        "action": entry.action,
        "subject_type": entry.subject_type,
        "subject": entry.subject,
        "reason": entry.reason,
        "request_id": entry.request_id,
        "details": Jsonb(dict(entry.details)),
    }


_WRITTEN = "SELECT id, at, actor, action, subject_type, subject, reason, request_id, details FROM audit"
_MADE = """
UNION ALL
SELECT 0, claimed_at, 'claimant', 'claim.make', 'claim', id::text, '', NULL,
    jsonb_build_object('coupon_name', coupon_name)
FROM user_claims WHERE id = :claim_id
"""
_CONDITIONS = {
    "subject_type": "subject_type = :subject_type",
    "subject": "subject = :subject",
    "actor": "actor = :actor",
    "action": "action = :action",
    "since": "at >= :since",
    "after_id": "(at, id) < (:after_at, cast(:after_id AS bigint))",
}


def entries_query(asked: AuditFilter, after: AuditPosition | None, limit: int) -> tuple[str, dict[str, Any]]:
    """The statement that reads entries, and its parameters; see `ports.AuditLog`."""
    values: dict[str, Any] = {
        "subject_type": asked.subject_type,
        "subject": asked.subject,
        "actor": asked.actor,
        "action": asked.action,
        "since": asked.since,
        "after_at": after.at if after is not None else None,
        "after_id": after.id if after is not None else None,
        "claim_id": _claim_id(asked),
        "limit": limit,
    }
    values = {name: value for name, value in values.items() if value is not None}
    source = f"{_WRITTEN} {_MADE}" if "claim_id" in values else _WRITTEN
    conditions = " AND ".join(condition for name, condition in _CONDITIONS.items() if name in values)
    statement = f"""
        SELECT * FROM ({source}) AS entry {f"WHERE {conditions}" if conditions else ""}
        ORDER BY at DESC, id DESC LIMIT :limit
    """  # noqa: S608 - of constants
    return statement, values


def _claim_id(asked: AuditFilter) -> UUID | None:
    if asked.subject_type != "claim" or asked.subject is None:
        return None
    try:
        return UUID(asked.subject)
    except ValueError:
        return None
