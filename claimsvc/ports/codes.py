"""Unique codes of coupons."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    IdempotencyKey,
    KeyReused,
    NewCode,
    PatternTooSmall,
    Redeemed,
    RefusedRow,
    Replayed,
    RowsRefused,
    UnknownCode,
    UnknownCoupon,
)


class Codes(Protocol):
    """Unique codes of coupons. Every method raises `UnavailableError` as those of `Storage`."""

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        once: IdempotencyKey | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        """Add codes to a coupon, whose amount grows with them; with its first ones, it becomes how many they are.

        Safe to ask again: what was added is then refused as existing; or with `once`, whose answer is kept as soon as
        all is added, everything is told again.

        Args:
            atomic: all of them or none; else those that can be added, some thousand at a time.
        """
        ...

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        once: IdempotencyKey | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        """The same with codes that are made at random, as `GENERATION_PATTERN` describes."""
        ...

    async def redeem(
        self, code: str, entry: AuditEntry, once: IdempotencyKey | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
        """Use a code, once."""
        ...

    async def code(self, code: str) -> Code | None: ...

    async def count(self, coupon_type: str | None) -> CodeCounts:
        """How many codes the coupons of a type have; None for coupons without one."""
        ...

    async def expire_due(self) -> int:
        """Take codes out of stock that nobody has and that can be redeemed no more; some of them, if there are many.

        Returns how many.
        """
        ...

    async def types(self) -> list[str | None]:
        """The types of which there are coupons with codes."""
        ...
