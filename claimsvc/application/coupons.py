"""Creating, changing, archiving and reading coupons."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from claimsvc.application.scopes import require
from claimsvc.domain import (
    AuditEntry,
    Caller,
    Campaign,
    Coupon,
    CouponDetail,
    CouponExists,
    CouponFilter,
    CouponWarning,
    IdempotencyKey,
    KeyReused,
    ListedCoupon,
    PeriodIsEmpty,
    Replayed,
    Scope,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.domain.coupon_warnings import named_by, warnings_of
from claimsvc.errors import UnavailableError
from claimsvc.ports import Campaigns, ChangeAnswer, Coupons

MAX_CLAIMANTS = 1000
"""How many claimants `get` returns at most."""


async def create(
    campaigns: Campaigns,
    caller: Caller,
    name: str,
    amount: int,
    strategy: StrategyName,
    campaign: Campaign,
    *,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> Coupon | CouponExists | PeriodIsEmpty | Replayed | KeyReused:
    """Create a coupon.

    Args:
        campaigns: stores the coupon.
        caller: needs the scope `coupons:write`.
        name: the coupon's name.
        amount: how many units can be claimed.
        strategy: how claims are ordered.
        campaign: its period, rules and other properties.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.COUPONS_WRITE)
    if campaign.is_empty():
        return PeriodIsEmpty()
    return await campaigns.create(name, amount, strategy, campaign, key, actor=caller.actor, request_id=request_id)


async def change(
    campaigns: Campaigns, caller: Caller, name: str, change: Mapping[str, Any], *, request_id: str | None = None
) -> ChangeAnswer:
    """Change a coupon's amount or campaign.

    Args:
        campaigns: stores the coupon.
        caller: needs the scope `coupons:write`.
        name: the coupon's name.
        change: new values by the field names of `Campaign`, and `amount`; absent fields stay unchanged.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
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
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> ChangeAnswer:
    """Archive a coupon permanently: it can no longer be claimed. The scope and the errors are those of `change`."""
    require(caller, Scope.COUPONS_WRITE)
    return await campaigns.change(
        name, {}, _entry(caller, "coupon.archive", name, request_id, {}), archive=True, idempotency_key=key
    )


async def get(coupons: Coupons, caller: Caller, name: str) -> CouponDetail | UnknownCoupon:
    """Read a coupon, with the claimants that the caller may see.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    found = await coupons.coupon(name, claimants=MAX_CLAIMANTS)
    if found is None:
        return UnknownCoupon()
    return replace(found, claimed_by=tuple(user_id for user_id in found.claimed_by if caller.sees(user_id)))


async def listed(coupons: Coupons, matching: CouponFilter, *, after: str | None, limit: int) -> list[ListedCoupon]:
    """List coupons by name. Everybody may.

    Args:
        coupons: reads coupons.
        matching: which coupons.
        after: the last name of the previous page; None for the first page.
        limit: how many are returned at most.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    return await coupons.listed(matching, after=after, limit=limit)


async def warnings(
    coupons: Coupons, name: str, campaign: Campaign, *, has_tokens: bool | None = None
) -> list[CouponWarning]:
    """Return what is probably not meant in the terms of a coupon that was just created or changed.

    Args:
        coupons: says which of the coupons in its rules exist. If it does not answer, there is no warning about them.
        name: the coupon's name.
        campaign: its terms.
        has_tokens: whether users have tokens; None if that is unknown.
    """
    names, known = named_by(campaign.rules), None
    if names:
        # The coupon is stored already, so a failure must not become the answer.
        with suppress(UnavailableError):
            known = {coupon.name for coupon in await coupons.stock(sorted(names))}
    return warnings_of(name, campaign, now=datetime.now(UTC), known=known, has_tokens=has_tokens)


def _entry(caller: Caller, action: str, name: str, request_id: str | None, details: Mapping[str, Any]) -> AuditEntry:
    return AuditEntry(caller.actor, action, "coupon", name, request_id=request_id, details=details)
