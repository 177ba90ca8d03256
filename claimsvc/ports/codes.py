"""Unique codes of coupons."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from claimsvc.domain import (
    AuditEntry,
    Code,
    CodeCounts,
    CodeExpired,
    CodesAdded,
    IdempotencyKey,
    KeyReused,
    NewCode,
    PatternTooSmall,
    RefusedRow,
    Replayed,
    RowsRefused,
    UnknownCoupon,
)
from claimsvc.ports.redemptions import Redemptions


class Codes(Redemptions, Protocol):
    """Stores unique codes. Every method raises `UnavailableError` when the database does not answer in time."""

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        uses: int | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        """Add codes to a coupon, and increase its amount by their number.

        With its first codes, the coupon's unclaimed units are replaced by them. Safe to repeat: codes added before are
        refused as existing. With `idempotency_key`, the answer is stored with the last codes, and a repetition gets it
        again.

        Args:
            coupon_name: the coupon.
            rows: parsed rows of a file, in chunks.
            entry: written to the audit log with each transaction, with the number of codes added.
            atomic: add all rows in one transaction, or none; otherwise add those that are valid, in transactions of a
                few thousand.
            uses: how often each of the codes may be redeemed; None if as often as the coupon says.
            idempotency_key: the request's idempotency key.
        """
        ...

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        idempotency_key: IdempotencyKey | None = None,
        *,
        uses: int | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        """Add `count` random codes to a coupon in one transaction; see `add`.

        Refused, if the coupon would have too many codes of the pattern, or fewer than `count` of them are unused.

        Args:
            coupon_name: the coupon.
            count: how many codes.
            pattern: their form; see `GENERATION_PATTERN`.
            expires_at: when they can no longer be redeemed; None if never.
            entry: written to the audit log, with the number of codes.
            idempotency_key: the request's idempotency key.
            uses: see `add`.
        """
        ...

    async def code(self, code: str) -> Code | None:
        """Return a code; None if it does not exist.

        If there is none, it is the only one that differs from it by case alone.
        """
        ...

    async def of_coupon(self, coupon_name: str, *, after: str, limit: int) -> list[Code] | UnknownCoupon:
        """Return the codes of a coupon that follow `after`, in byte order, at most `limit`."""
        ...

    async def count(self, coupon_type: str | None) -> CodeCounts:
        """Count the codes of all coupons of a type, or of all coupons without a type (None)."""
        ...

    async def changed_elsewhere(self) -> set[str | None]:
        """Return the types whose codes were changed by processes that do not count them, such as commands.

        Each change is returned once, to one caller.
        """
        ...

    async def expire_due(self) -> int:
        """Remove expired, unclaimed codes from the stock: only some, if there are many.

        Returns:
            The number of codes removed.
        """
        ...

    async def types(self) -> list[str | None]:
        """Return the types of all coupons with codes, including None."""
        ...
