"""Counts of what is left, outside the database."""

from typing import Protocol


class Counters(Protocol):
    """Counts of what is left, kept outside the database: quick, and only ever advice.

    Every method raises `UnavailableError` when the counters cannot be reached.
    """

    async def take(self, coupon_name: str, units: int) -> int | None:
        """Take up to so many units, atomically. Returns how many there were; None if nothing is known."""
        ...

    async def give_back(self, coupon_name: str, units: int) -> None:
        """Put units back that were taken and not used; nothing if nothing is known."""
        ...

    async def learn(self, coupon_name: str, remaining_amount: int) -> None:
        """Start counting from what the database says, unless somebody was quicker."""
        ...

    async def count(self, coupon_name: str) -> int | None:
        """What the counter says is left; None if nothing is known."""
        ...

    async def forget(self, coupon_name: str, count: int) -> None:
        """Forget the count if it is still this one, so that it is learnt anew."""
        ...
