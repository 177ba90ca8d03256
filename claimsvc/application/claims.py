"""Claiming, and what becomes of claims: each by the claim's user, or by a caller with the scope."""

from collections.abc import AsyncIterator

from claimsvc.application.permissions import require
from claimsvc.domain import (
    AlreadyCancelled,
    AlreadyRedeemed,
    AuditEntry,
    Caller,
    Cancelled,
    Claim,
    ClaimOptions,
    ClaimPosition,
    Confirmed,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    NotYourClaim,
    Replayed,
    Scope,
    UnknownClaim,
    UnknownCoupon,
)
from claimsvc.ports import AnyClaims, ClaimRecords, Exports, PendingOutcome, Transitions


def begin(
    claims: AnyClaims, user_id: str, coupon_name: str | None, coupon_type: str | None, options: ClaimOptions | None
) -> PendingOutcome:
    """Begin a claim. The caller was found to act for the user before; the fast path calls this, too.

    Args:
        claims: where claims are made.
        user_id: whom the unit is for.
        coupon_name: the coupon; None for the oldest one that can be claimed.
        coupon_type: where the coupon is left open: only coupons of this type; None for any.
        want: what is asked for beyond one unit.
    """
    if coupon_name is None:
        return claims.claim_first(coupon_type, user_id, options)
    return claims.claim(coupon_name, user_id, options)


async def get(claims: ClaimRecords, caller: Caller, claim_id: str) -> Claim | UnknownClaim | NotYourClaim:
    """Look a claim up. Raises `UnavailableError`."""
    claim = await claims.claim(claim_id)
    if claim is None:
        return UnknownClaim()
    return claim if caller.sees(claim.user_id) else NotYourClaim()


async def of_coupon(
    claims: ClaimRecords, caller: Caller, coupon_name: str, *, after: ClaimPosition | None, limit: int
) -> list[Claim] | UnknownCoupon:
    """List the active claims of a coupon, oldest first, from just after a position.

    Raises:
        PermissionDeniedError: the caller may not read claims.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.CLAIMS_READ)
    return await claims.claims(coupon_name, after=after, limit=limit)


async def export(exports: Exports, caller: Caller, coupon_name: str) -> AsyncIterator[bytes] | UnknownCoupon:
    """Export every claim of a coupon as CSV. Raises as `of_coupon`."""
    require(caller, Scope.CLAIMS_READ)
    return await exports.claims(coupon_name)


async def cancel(
    claims: ClaimRecords,
    transitions: Transitions,
    caller: Caller,
    claim_id: str,
    reason: str,
    *,
    request_id: str | None = None,
) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim | NotYourClaim:
    """Give a claim back, held or confirmed. Raises `UnavailableError`."""
    if not await _acts_for_its_user(claims, caller, claim_id):
        return NotYourClaim()
    entry = AuditEntry(caller.actor, "claim.cancel", "claim", claim_id.lower(), reason=reason, request_id=request_id)
    return await transitions.cancel(claim_id, entry)


async def confirm(
    claims: ClaimRecords,
    transitions: Transitions,
    caller: Caller,
    claim_id: str,
    *,
    once: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused | NotYourClaim:
    """Keep a held unit for good. Raises `UnavailableError`."""
    if not await _acts_for_its_user(claims, caller, claim_id):
        return NotYourClaim()
    return await transitions.confirm(claim_id, once, actor=caller.actor, request_id=request_id)


async def _acts_for_its_user(claims: ClaimRecords, caller: Caller, claim_id: str) -> bool:
    """Whether the caller may change this claim. An unknown claim is nobody's, and is reported as unknown later."""
    if Scope.CLAIMS_WRITE in caller.scopes:
        return True
    # A claim never changes its user, so what is read here still holds when it is changed.
    claim = await claims.claim(claim_id)
    return claim is None or caller.acts_for(claim.user_id)
