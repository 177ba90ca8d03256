"""The audit log."""

from typing import Protocol

from claimsvc.domain import (
    AuditEntry,
    AuditFilter,
    AuditPosition,
)


class AuditLog(Protocol):
    """Who did what, kept for ever. Each raises `UnavailableError` when the database does not answer in time."""

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry; it is committed when this returns."""
        ...

    async def entries(self, asked: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        """What was done, newest first, from just after the position `after`.

        Of one claim its making is told too, as its row has it: most claims have no entry of their own.
        """
        ...
