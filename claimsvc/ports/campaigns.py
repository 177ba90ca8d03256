"""Creating and changing coupons."""

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
    """Creates and changes coupons. Both methods raise `UnavailableError` when the database does not answer in time."""

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        idempotency_key: IdempotencyKey | None = None,
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        """Create a coupon and its audit entry in one transaction.

        Args:
            name: of the coupon.
            amount: units of stock.
            strategy: how its claims are admitted.
            campaign: its terms.
            idempotency_key: if given, the answer is stored, and a request with the same key gets it again.
            actor: who creates it, for the audit log.
            request_id: for the audit log.

        Raises:
            UnavailableError: also if the coupon exists after a commit in doubt, and without `idempotency_key` it is
                unknown whether this request created it.
        """
        ...

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        idempotency_key: IdempotencyKey | None = None,
    ) -> ChangeAnswer:
        """Change a coupon and write its audit entry in one transaction. The result's `claimed_by` is empty.

        Args:
            name: of the coupon.
            change: new values by the names of the fields of `Campaign`, and `amount`; other values stay.
            entry: the audit entry.
            archive: close it permanently.
            idempotency_key: if given, the answer is stored, and a request with the same key gets it again.
        """
        ...
