"""Reading the audit."""

from claimsvc.application.scopes import require
from claimsvc.domain import AuditEntry, AuditFilter, AuditPosition, Caller, Scope
from claimsvc.ports import AuditLog


async def entries(
    log: AuditLog, caller: Caller, matching: AuditFilter, *, after: AuditPosition | None, limit: int
) -> list[AuditEntry]:
    """List audit entries, newest first.

    Args:
        log: the audit.
        caller: needs the scope `audit:read`.
        matching: the filter of the entries.
        after: the position after which the list begins; None for the newest entry.
        limit: how many entries are returned at most.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.AUDIT_READ)
    return await log.entries(matching, after=after, limit=limit)
