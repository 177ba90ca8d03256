"""Eligibility: checking users, and replacing allow and deny lists."""

from collections.abc import AsyncIterator, Sequence

from claimsvc.application.scopes import require
from claimsvc.domain import (
    AuditEntry,
    Caller,
    ClaimOptions,
    Eligibility,
    IdempotencyKey,
    KeyReused,
    ListKind,
    ListReplaced,
    Replayed,
    Scope,
    UnknownCoupon,
)
from claimsvc.domain.eligibility import Attributes
from claimsvc.ports import Audience


async def check(
    audience: Audience,
    caller: Caller,
    coupon_name: str,
    user_id: str,
    attributes: Attributes,
    *,
    key: IdempotencyKey | None = None,
) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
    """Check whether a user could claim a coupon now, without claiming.

    Args:
        audience: decides eligibility.
        caller: the attributes in its token are used too.
        coupon_name: the coupon.
        user_id: the user.
        attributes: the user's attributes in the request.
        key: the request's idempotency key.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    options = ClaimOptions(attributes=attributes, token=caller.attributes)
    return await audience.eligibility(coupon_name, user_id, options, key)


async def replace_list(
    audience: Audience,
    caller: Caller,
    coupon_name: str,
    kind: ListKind,
    users: AsyncIterator[Sequence[str]],
    *,
    request_id: str | None = None,
) -> ListReplaced | UnknownCoupon:
    """Replace a coupon's list. Claims see the old list or the new one, never a mixture of both.

    Args:
        audience: stores the list.
        caller: needs the scope `coupons:write`.
        coupon_name: the coupon.
        kind: the allow list or the deny list.
        users: the users on the new list, in batches.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.COUPONS_WRITE)
    return await audience.replace_list(
        coupon_name, kind, users, _entry(caller, f"{kind}-list.replace", coupon_name, request_id)
    )


async def remove_list(
    audience: Audience, caller: Caller, coupon_name: str, kind: ListKind, *, request_id: str | None = None
) -> ListReplaced | UnknownCoupon:
    """Delete a coupon's list. The scope and the errors are those of `replace_list`."""
    require(caller, Scope.COUPONS_WRITE)
    return await audience.remove_list(coupon_name, kind, _entry(caller, f"{kind}-list.remove", coupon_name, request_id))


def _entry(caller: Caller, action: str, coupon_name: str, request_id: str | None) -> AuditEntry:
    return AuditEntry(caller.actor, action, "coupon", coupon_name, request_id=request_id)
