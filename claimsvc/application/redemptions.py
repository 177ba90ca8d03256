"""Redeeming claims by their ids, and taking a redemption back. `codes` does the same by codes."""

from claimsvc.application.scopes import require
from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Caller,
    ClaimEnded,
    ClaimNotConfirmed,
    ClaimRedeemed,
    ClaimUnredeemed,
    CodeExpired,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    NotRedeemed,
    NotYourClaim,
    Replayed,
    Scope,
    UnknownClaim,
)
from claimsvc.ports import ClaimRecords, Redemptions


async def redeem(
    claims: ClaimRecords,
    redemptions: Redemptions,
    caller: Caller,
    claim_id: str,
    *,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> (
    ClaimRedeemed
    | AlreadyRedeemed
    | CodeExpired
    | ClaimNotConfirmed
    | ClaimEnded
    | HoldExpired
    | UnknownClaim
    | NotYourClaim
    | Replayed
    | KeyReused
):
    """Redeem a claim, with its code if it has one.

    Args:
        claims: reads the claim's user.
        redemptions: redeems the claim.
        caller: the claim's user, or a caller with the scope `codes:redeem`.
        claim_id: the claim.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller is no user, and lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    if caller.user_id is None:
        require(caller, Scope.CODES_REDEEM)
    if Scope.CODES_REDEEM not in caller.scopes:
        claim = await claims.claim(claim_id)
        if claim is not None and claim.user_id != caller.user_id:
            return NotYourClaim()
    entry = AuditEntry(caller.actor, "claim.redeem", "claim", claim_id.lower(), request_id=request_id)
    return await redemptions.redeem_claim(claim_id, entry, key)


async def unredeem(
    redemptions: Redemptions,
    caller: Caller,
    claim_id: str,
    reason: str,
    *,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> ClaimUnredeemed | NotRedeemed | UnknownClaim | Replayed | KeyReused:
    """Take back the last redemption of a claim, because it fell through.

    Args:
        redemptions: takes it back.
        caller: needs the scope `codes:redeem`.
        claim_id: the claim.
        reason: why, for the audit.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.CODES_REDEEM)
    entry = AuditEntry(caller.actor, "claim.unredeem", "claim", claim_id.lower(), reason=reason, request_id=request_id)
    return await redemptions.unredeem_claim(claim_id, entry, key)
