"""The audit log."""

from typing import Protocol

from claimsvc.domain import (
    AuditEntry,
    AuditFilter,
    AuditPosition,
)


class AuditLog(Protocol):
    """Records who did what; entries are never changed or removed.

    Both methods raise `UnavailableError` when the database does not answer in time.
    """

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry, and return when it is committed."""
        ...

    async def entries(self, wanted: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        """Return matching entries, newest first, after the position `after`.

        If the filter selects one claim, the result includes an entry for its creation, derived from the claim's row:
        most claims have no stored entry of it.
        """
        ...
