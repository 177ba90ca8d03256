"""Offering coupons, changing them, and looking them up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from claimsvc.application.permissions import require
from claimsvc.domain import (
    AuditEntry,
    Caller,
    Campaign,
    Coupon,
    CouponDetail,
    CouponExists,
    IdempotencyKey,
    KeyReused,
    PeriodIsEmpty,
    Replayed,
    Scope,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.ports import Campaigns, ChangeAnswer, Coupons

MAX_CLAIMANTS = 1000
"""How many claimants a coupon is shown with."""


async def create(
    campaigns: Campaigns,
    caller: Caller,
    name: str,
    amount: int,
    strategy: StrategyName,
    campaign: Campaign,
    *,
    once: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> Coupon | CouponExists | PeriodIsEmpty | Replayed | KeyReused:
    """Offer a coupon.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.COUPONS_WRITE)
    if campaign.is_empty():
        return PeriodIsEmpty()
    return await campaigns.create(name, amount, strategy, campaign, once, actor=caller.actor, request_id=request_id)


async def change(
    campaigns: Campaigns, caller: Caller, name: str, change: Mapping[str, Any], *, request_id: str | None = None
) -> ChangeAnswer:
    """Change a coupon's amount or campaign.

    Args:
        change: new values by the names of `Campaign`, and `amount`; what is absent stays.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.COUPONS_WRITE)
    entry = _entry(caller, "coupon.change", name, request_id, {"fields": sorted(change)} if change else {})
    return await campaigns.change(name, change, entry)


async def archive(
    campaigns: Campaigns,
    caller: Caller,
    name: str,
    *,
    once: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> ChangeAnswer:
    """Close a coupon for good. Raises as `change`."""
    require(caller, Scope.COUPONS_WRITE)
    return await campaigns.change(
        name, {}, _entry(caller, "coupon.archive", name, request_id, {}), archive=True, once=once
    )


async def get(coupons: Coupons, caller: Caller, name: str) -> CouponDetail | UnknownCoupon:
    """Look a coupon up, with those of its claimants that the caller may see. Raises `UnavailableError`."""
    found = await coupons.coupon(name, claimants=MAX_CLAIMANTS)
    if found is None:
        return UnknownCoupon()
    return replace(found, claimed_by=tuple(user_id for user_id in found.claimed_by if caller.sees(user_id)))


def _entry(caller: Caller, action: str, name: str, request_id: str | None, details: Mapping[str, Any]) -> AuditEntry:
    return AuditEntry(caller.actor, action, "coupon", name, request_id=request_id, details=details)
