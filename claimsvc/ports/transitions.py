"""What becomes of claims."""

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
    """What becomes of claims. Every method raises `UnavailableError` as those of `Storage`; to ask again is safe."""

    async def cancel(
        self, claim_id: str, entry: AuditEntry
    ) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim:
        """Give a claim back, held or confirmed, and exactly one unit with it; the audit's entry is of that alone.

        A code that was shown is nobody's any more. Where codes are generated a new one takes its place; of a coupon
        whose codes were brought, there is one less.
        """
        ...

    async def confirm(
        self,
        claim_id: str,
        once: IdempotencyKey | None = None,
        *,
        actor: str = "claimant",
        request_id: str | None = None,
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        """Make a claim that is held its user's for good, and keep the audit's entry of it; the user itself does so,
        unless `actor` says otherwise. With `once` the answer is kept, and told again."""
        ...
