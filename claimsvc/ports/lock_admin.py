"""Administration of locks."""

from typing import Protocol

from claimsvc.domain import (
    HeldLock,
    LockNotHeld,
    LockReleased,
    LocksSeen,
)


class LockAdmin(Protocol):
    """Lists and releases locks for operators.

    Every method raises `UnavailableError` when a majority of the masters does not respond.
    """

    async def held(self) -> LocksSeen:
        """Return all current locks. Takes no lock, and blocks no client."""
        ...

    async def look(self, coupon_name: str) -> list[HeldLock]:
        """Return the lock of one coupon; an empty list if it is free."""
        ...

    async def release(
        self, coupon_name: str, *, actor: str, reason: str, request_id: str | None = None
    ) -> LockReleased | LockNotHeld:
        """Release a lock by force, and wake an instance that waits for it.

        The audit entry is written first; if that fails, nothing is released. The holder is not notified: PostgreSQL
        still decides its claims correctly, and it notices the loss when it releases the lock.

        Args:
            coupon_name: the coupon.
            actor: who releases it, for the audit log.
            reason: why, for the audit log.
            request_id: for the audit log.

        Raises:
            UnavailableError: also when PostgreSQL, which stores the audit log, does not answer in time.
        """
        ...
