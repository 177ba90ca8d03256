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
    """Who may claim. Every method raises `UnavailableError` as those of `Storage`."""

    async def eligibility(
        self, coupon_name: str, user_id: str, options: ClaimOptions, once: IdempotencyKey | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        """What would become of such a claim in this moment, without claiming."""
        ...

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        """Load a list, and put it in force in one moment: a claim sees the old list or the new one, and that whole.

        Nothing of it is kept if `users` raises. Of two that are loaded at the same time, the one that was begun last is
        in force in the end.

        Args:
            users: in any order, and as often as they like; some at a time.
            entry: the audit's, kept when the list is put in force, with the number of users.
        """
        ...

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        """Take a list away, if there is one; the audit's entry is of that alone."""
        ...
