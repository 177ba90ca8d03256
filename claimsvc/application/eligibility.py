"""Who may claim a coupon: asking, and the lists that say so."""

from collections.abc import AsyncIterator, Sequence

from claimsvc.application.permissions import require
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
    attributes_of,
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
    once: IdempotencyKey | None = None,
) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
    """Say what would become of a claim now, without claiming. Raises `UnavailableError`.

    Args:
        attributes: what the request says of the user; what the caller's token says is added.
    """
    options = ClaimOptions(attributes=attributes, token=attributes_of(caller.token))
    return await audience.eligibility(coupon_name, user_id, options, once)


async def replace_list(
    audience: Audience,
    caller: Caller,
    coupon_name: str,
    kind: ListKind,
    users: AsyncIterator[Sequence[str]],
    *,
    request_id: str | None = None,
) -> ListReplaced | UnknownCoupon:
    """Replace a coupon's list: claims see the old list or the new one, never a mixture of both.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.COUPONS_WRITE)
    return await audience.replace_list(
        coupon_name, kind, users, _entry(caller, f"{kind}-list.replace", coupon_name, request_id)
    )


async def remove_list(
    audience: Audience, caller: Caller, coupon_name: str, kind: ListKind, *, request_id: str | None = None
) -> ListReplaced | UnknownCoupon:
    """Remove a coupon's list. Raises as `replace_list`."""
    require(caller, Scope.COUPONS_WRITE)
    return await audience.remove_list(coupon_name, kind, _entry(caller, f"{kind}-list.remove", coupon_name, request_id))


def _entry(caller: Caller, action: str, coupon_name: str, request_id: str | None) -> AuditEntry:
    return AuditEntry(caller.actor, action, "coupon", coupon_name, request_id=request_id)
