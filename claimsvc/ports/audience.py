"""Who may claim a coupon."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from claimsvc.domain import (
    AuditEntry,
    ClaimOptions,
    Eligibility,
    IdempotencyKey,
    KeyReused,
    ListKind,
    ListReplaced,
    Replayed,
    UnknownCoupon,
)


class Audience(Protocol):
    """Decides who may claim. Every method raises `UnavailableError` when the database does not answer in time."""

    async def eligibility(
        self, coupon_name: str, user_id: str, options: ClaimOptions, idempotency_key: IdempotencyKey | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        """Return what a claim with these options would result in now, without claiming.

        With `idempotency_key`, the answer is stored, and a request with the same key gets it again.
        """
        ...

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        """Load a list and activate it atomically: a claim sees the old list or the new one, never a mixture of both.

        If `users` raises, nothing is changed. Of two lists loaded at the same time, the one whose loading started last
        stays active.

        Args:
            users: user ids in chunks, in any order; duplicates are ignored.
            entry: written to the audit log when the list becomes active, with the number of users.
        """
        ...

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        """Remove a list. Without a list, nothing happens and `entry` is not written to the audit log."""
        ...
