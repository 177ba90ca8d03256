"""Redeeming claims and codes."""

from typing import Protocol

from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    ClaimEnded,
    ClaimNotConfirmed,
    ClaimRedeemed,
    ClaimUnredeemed,
    CodeCheck,
    CodeExpired,
    CodeNotClaimed,
    CodeUnredeemed,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    NotRedeemed,
    NotYourClaim,
    Redeemed,
    Replayed,
    UnknownClaim,
    UnknownCode,
)


class Redemptions(Protocol):
    """Redeems claims, by their codes or their ids. Each may be redeemed as often as its code or its coupon says.

    A code that does not exist is taken for the only one that differs from it by case alone. Every method raises
    `UnavailableError` when the database does not answer in time.
    """

    async def redeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None, *, user_id: str | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode | Replayed | KeyReused:
        """Redeem a code.

        Args:
            code: the code.
            entry: written to the audit log, about the code as it is stored.
            idempotency_key: the request's idempotency key.
            user_id: if given, the outcome is `NotYourClaim` unless this user's claim has the code.
        """
        ...

    async def redeem_claim(
        self, claim_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> (
        ClaimRedeemed
        | AlreadyRedeemed
        | CodeExpired
        | ClaimNotConfirmed
        | ClaimEnded
        | HoldExpired
        | UnknownClaim
        | Replayed
        | KeyReused
    ):
        """Redeem a claim, with its code if it has one.

        Args:
            claim_id: a UUID.
            entry: written to the audit log, with the claim's coupon.
            idempotency_key: the request's idempotency key.
        """
        ...

    async def unredeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> CodeUnredeemed | NotRedeemed | UnknownCode | Replayed | KeyReused:
        """Take back the last redemption of a code; the arguments are those of `redeem`."""
        ...

    async def unredeem_claim(
        self, claim_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> ClaimUnredeemed | NotRedeemed | UnknownClaim | Replayed | KeyReused:
        """Take back the last redemption of a claim; the arguments are those of `redeem_claim`."""
        ...

    async def check(self, code: str, user_id: str | None) -> CodeCheck | UnknownCode:
        """Return what `redeem` would result in now. Changes nothing."""
        ...
