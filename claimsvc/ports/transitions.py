"""Confirming and cancelling claims."""

from typing import Protocol

from claimsvc.domain import (
    AlreadyCancelled,
    AlreadyRedeemed,
    AuditEntry,
    Cancelled,
    Confirmed,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    Replayed,
    UnknownClaim,
)


class Transitions(Protocol):
    """Confirms and cancels claims. Safe to repeat.

    Both methods raise `UnavailableError` when the database does not answer in time.
    """

    async def cancel(
        self, claim_id: str, entry: AuditEntry
    ) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim:
        """Cancel a held or confirmed claim, and return exactly one unit to stock.

        `entry` is written to the audit log only if this call cancels the claim. A code that was shown to its user is
        voided: if the coupon's codes are generated, a new one replaces it; otherwise the amount decreases by one.
        """
        ...

    async def confirm(
        self,
        claim_id: str,
        idempotency_key: IdempotencyKey | None = None,
        *,
        actor: str = "claimant",
        request_id: str | None = None,
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        """Confirm a held claim, and write an audit entry in the same transaction.

        Args:
            claim_id: a UUID.
            idempotency_key: if given, the answer is stored, and a request with the same key gets it again.
            actor: who confirms it, for the audit log; by default the user.
            request_id: for the audit log.
        """
        ...
