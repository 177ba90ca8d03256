"""Reading the audit."""

from claimsvc.application.permissions import require
from claimsvc.domain import AuditEntry, AuditFilter, AuditPosition, Caller, Scope
from claimsvc.ports import AuditLog


async def entries(
    log: AuditLog, caller: Caller, asked: AuditFilter, *, after: AuditPosition | None, limit: int
) -> list[AuditEntry]:
    """List what was done, newest first, from just after a position.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.AUDIT_READ)
    return await log.entries(asked, after=after, limit=limit)
