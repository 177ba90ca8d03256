"""The lock of a coupon."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Lease(Protocol):
    """Locks that are held, for now."""

    coupon_names: Sequence[str]
    handed_over: Sequence[str]
    """Once given back: those for which another instance was woken. It is its turn now, not ours."""

    def seconds_left(self) -> float:
        """How long the locks are certainly still ours; 0 or less once they may be another's."""
        ...

    async def is_wanted(self) -> bool:
        """Whether another instance waits for them."""
        ...


class Lock(Protocol):
    """Locks on coupons' names, shared by every instance.

    Safe to cancel at any moment: no lock is left behind. Giving one back never raises. Both ways of holding raise
    `UnavailableError` when a majority of the masters does not answer.
    """

    def hold_free(self, coupon_names: Sequence[str]) -> AbstractAsyncContextManager[Lease]:
        """Take those locks that are free, in one attempt, and give them back on leaving.

        The lease tells which; it may be none.
        """
        ...

    def hold(self, coupon_name: str, *, was_busy: bool = False) -> AbstractAsyncContextManager[Lease]:
        """Take the lock, waiting as the retry policy allows, and give it back on leaving.

        Args:
            was_busy: the first attempt was just made (by `hold_free`), so begin with the first pause.

        Raises:
            LockBusyError: others held it through every attempt.
        """
        ...


class LockObserver(Protocol):
    """What the lock tells whoever watches it.

    An attempt's or a wait's `result` is `acquired`, `busy` or `unavailable` (a wait's also `cancelled`); a hint's is
    `sent`, `used`, or `late` when nobody here waited for it any more. Locks that are taken together were waited for
    and are held together. `taken` begins what `held` ends.
    """

    def attempted(self, coupon_name: str, result: str) -> None: ...
    def retried(self, coupon_name: str) -> None: ...
    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None: ...
    def taken(self, coupon_names: Sequence[str]) -> None: ...
    def held(self, coupon_names: Sequence[str], seconds: float) -> None: ...
    def lost(self, coupon_name: str) -> None: ...
    def hinted(self, result: str) -> None: ...
    def lock_waiters(self, change: int) -> None: ...
