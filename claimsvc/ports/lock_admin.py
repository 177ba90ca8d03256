"""What operators see of locks, and releasing them."""

from typing import Protocol

from claimsvc.domain import (
    HeldLock,
    LockNotHeld,
    LockReleased,
    LocksSeen,
)


class LockAdmin(Protocol):
    """What operators see of the locks, and do to one. All raise `UnavailableError` without a majority of masters."""

    async def held(self) -> LocksSeen:
        """The locks of this moment. Takes none, and keeps nobody waiting."""
        ...

    async def look(self, coupon_name: str) -> list[HeldLock]:
        """The same of one coupon, however many others there are: usually one, none if it is free."""
        ...

    async def release(
        self, coupon_name: str, *, actor: str, reason: str, request_id: str | None = None
    ) -> LockReleased | LockNotHeld:
        """Give a lock back by force, and wake who waits for it. It is audited first, or not done.

        The holder is not told: its claims are decided by PostgreSQL all the same, and it finds out when it gives back.

        Raises:
            UnavailableError: also without PostgreSQL, which keeps the audit.
        """
        ...
