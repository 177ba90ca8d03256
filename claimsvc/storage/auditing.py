"""Audit entries written in the transaction of what they tell of: both are kept, or neither."""

from typing import Any

from psycopg.types.json import Jsonb

from claimsvc.domain import AuditEntry

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
