"""Making, reading, confirming and cancelling claims: by the claim's user, or by a caller with the scope."""

from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from claimsvc.application.scopes import require
from claimsvc.domain import (
    ANYBODY,
    AlreadyCancelled,
    AlreadyRedeemed,
    AuditEntry,
    Caller,
    Cancelled,
    Claim,
    ClaimOptions,
    ClaimPosition,
    ClaimState,
    Confirmed,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    NotYourClaim,
    Replayed,
    Scope,
    UnknownClaim,
    UnknownCoupon,
    UserClaim,
)
from claimsvc.ports import AnyClaims, ClaimRecords, Exports, PendingOutcome, Transitions


def begin(
    claims: AnyClaims, user_id: str, coupon_name: str | None, coupon_type: str | None, options: ClaimOptions | None
) -> PendingOutcome:
    """Begin a claim. The entry point must have checked that the caller may act for the user.

    Args:
        claims: makes claims.
        user_id: the user who gets the unit.
        coupon_name: the coupon; None for the oldest claimable coupon of the type.
        coupon_type: if `coupon_name` is None, the type of the coupon; None for coupons without a type.
        options: the options of the claim; None for the usual claim.

    Returns:
        A future of the outcome.
    """
    if coupon_name is None:
        return claims.claim_first(coupon_type, user_id, options)
    return claims.claim(coupon_name, user_id, options)


async def get(claims: ClaimRecords, caller: Caller, claim_id: str) -> Claim | UnknownClaim | NotYourClaim:
    """Read a claim. The outcome is `NotYourClaim` if the caller may not see its user.

    Whether its code may be shown says `shows_code`.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    claim = await claims.claim(claim_id)
    if claim is None:
        return UnknownClaim()
    return claim if caller.sees(claim.user_id) else NotYourClaim()


def shows_code(caller: Caller, claim: Claim) -> bool:
    """Whether the caller may see a claim's code: its user, and keys with `codes:read`.

    Where no tokens are configured, users are not known: whoever has a claim's id is taken for its user.
    """
    return caller is ANYBODY or caller.sees_codes_of(claim.user_id)


async def of_coupon(
    claims: ClaimRecords, caller: Caller, coupon_name: str, *, after: ClaimPosition | None, limit: int
) -> list[Claim] | UnknownCoupon:
    """List the active claims of a coupon, oldest first, without their codes unless the caller may see codes.

    Args:
        claims: reads claims.
        caller: needs the scope `claims:read`.
        coupon_name: the coupon.
        after: the position after which the list begins; None for the oldest claim.
        limit: how many claims are returned at most.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.CLAIMS_READ)
    found = await claims.claims(coupon_name, after=after, limit=limit)
    if caller.sees_codes or isinstance(found, UnknownCoupon):
        return found
    return [replace(claim, code=None, terms=None) for claim in found]


async def of_user(
    claims: ClaimRecords,
    caller: Caller,
    user_id: str,
    *,
    states: Collection[ClaimState],
    before: ClaimPosition | None,
    limit: int,
) -> list[UserClaim] | NotYourClaim:
    """List the claims of a user, of any coupon, newest first, with their codes as far as the caller may see them.

    Args:
        claims: reads claims.
        caller: the user, or a caller with the scope `claims:read`; the codes need the scope `codes:read`.
        user_id: the user.
        states: only claims in one of these states.
        before: the position of the last claim of the previous page; None for the newest claim.
        limit: how many claims are returned at most.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    if not caller.sees(user_id):
        return NotYourClaim()
    found = await claims.claims_of_user(user_id, states=states, before=before, limit=limit)
    if caller.sees_codes_of(user_id):
        return found
    return [replace(each, claim=replace(each.claim, code=None, terms=None), shows_code=False) for each in found]


async def export(exports: Exports, caller: Caller, coupon_name: str) -> AsyncIterator[bytes] | UnknownCoupon:
    """Export all claims of a coupon as CSV, in pieces; with their codes, if the caller may see codes.

    The scope and the errors are those of `of_coupon`.
    """
    require(caller, Scope.CLAIMS_READ)
    return await exports.claims(coupon_name, with_codes=caller.sees_codes)


async def cancel(
    claims: ClaimRecords,
    transitions: Transitions,
    caller: Caller,
    claim_id: str,
    reason: str,
    *,
    request_id: str | None = None,
) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim | NotYourClaim:
    """Cancel a claim, held or confirmed.

    Args:
        claims: reads the claim's user.
        transitions: cancels the claim.
        caller: the claim's user, or a caller with the scope `claims:write`.
        claim_id: the claim.
        reason: why, for the audit; may be empty.
        request_id: the request's id, for the audit.

    Raises:
        UnavailableError: the database does not answer in time.
    """
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
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused | NotYourClaim:
    """Confirm a held claim.

    Args:
        claims: reads the claim's user.
        transitions: confirms the claim.
        caller: the claim's user, or a caller with the scope `claims:write`.
        claim_id: the claim.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    if not await _acts_for_its_user(claims, caller, claim_id):
        return NotYourClaim()
    return await transitions.confirm(claim_id, key, actor=caller.actor, request_id=request_id)


async def _acts_for_its_user(claims: ClaimRecords, caller: Caller, claim_id: str) -> bool:
    """Whether the caller may change this claim. True for an unknown claim, which the transition reports as unknown."""
    if Scope.CLAIMS_WRITE in caller.scopes:
        return True
    # The user of a claim never changes (except by erasure), so this result is still valid when the claim is changed.
    claim = await claims.claim(claim_id)
    return claim is None or caller.acts_for(claim.user_id)
