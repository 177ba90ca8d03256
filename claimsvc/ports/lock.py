"""The lock of a coupon."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Lease(Protocol):
    """Locks that are held until they are released or expire."""

    coupon_names: Sequence[str]
    handed_over: Sequence[str]
    """After the release: the coupons for which another waiting instance was woken, and should go first."""

    def seconds_left(self) -> float:
        """Return for how long the locks are certainly still held here; 0 or less once another may hold them."""
        ...

    async def is_wanted(self) -> bool:
        """Return whether another instance waits for one of the locks."""
        ...

    def hand_to(self, instance: str) -> None:
        """Wake this instance on release if none waits for the locks."""
        ...


class Lock(Protocol):
    """Locks on coupons, shared by all instances.

    Safe to cancel at any moment: no lock is left behind. Releasing never raises. Both methods raise `UnavailableError`
    when a majority of the masters does not respond.
    """

    def hold_free(self, coupon_names: Sequence[str]) -> AbstractAsyncContextManager[Lease]:
        """Take the locks that are free, in one attempt, and release them on exit.

        The lease contains the locks taken; it may be empty.
        """
        ...

    def hold(self, coupon_name: str, *, was_busy: bool = False) -> AbstractAsyncContextManager[Lease]:
        """Take a lock, retrying as the retry policy allows, and release it on exit.

        Args:
            coupon_name: the coupon.
            was_busy: `hold_free` has just failed to take it, so start with the first pause.

        Raises:
            LockBusyError: others held it through every attempt.
        """
        ...


class LockObserver(Protocol):
    """Observes the lock.

    The `result` of an attempt or a wait is `acquired`, `busy` or `unavailable` (of a wait also `cancelled`); that of a
    hint is `sent`, `used`, or `late` if no claim here waited for it any more. Locks that are taken together are
    reported together. `taken` reports the start of a hold, `held` its end with its duration.
    """

    def attempted(self, coupon_name: str, result: str) -> None: ...
    def retried(self, coupon_name: str) -> None: ...
    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None: ...
    def taken(self, coupon_names: Sequence[str]) -> None: ...
    def held(self, coupon_names: Sequence[str], seconds: float) -> None: ...
    def lost(self, coupon_name: str) -> None: ...
    def hinted(self, result: str) -> None: ...
    def lock_waiters(self, change: int) -> None: ...
