"""Offering coupons, and changing them."""

from collections.abc import Mapping
from typing import Any, Protocol

from claimsvc.domain import (
    AmountBelowClaimed,
    AmountIsCodes,
    AuditEntry,
    Campaign,
    Coupon,
    CouponDetail,
    CouponExists,
    IdempotencyKey,
    KeyReused,
    PeriodIsEmpty,
    Replayed,
    StrategyName,
    UnknownCoupon,
)

ChangeAnswer = CouponDetail | UnknownCoupon | AmountBelowClaimed | AmountIsCodes | PeriodIsEmpty | Replayed | KeyReused


class Campaigns(Protocol):
    """Offering coupons, and changing them. Every method raises `UnavailableError` as those of `Storage`."""

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        once: IdempotencyKey | None = None,
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        """Offer a coupon, and keep the audit's entry of it. With `once` the answer is kept, and told again."""
        ...

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        once: IdempotencyKey | None = None,
    ) -> ChangeAnswer:
        """Change a coupon, and keep the audit's entry of it, or do neither. The result names no claimants.

        Args:
            change: new values by the names of `Campaign`, and `amount`; what is not there stays.
            archive: also close it for good; once it is closed it stays so.
            once: that the answer is kept, and told again to who asks again.
        """
        ...
