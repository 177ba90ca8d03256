"""Stock counters outside the database."""

from typing import Protocol


class Counters(Protocol):
    """Counts the units left of each coupon outside the database. The counts are hints; PostgreSQL decides.

    Every method raises `UnavailableError` when the counters cannot be reached.
    """

    async def take(self, coupon_name: str, units: int) -> int | None:
        """Take up to `units` units atomically, and return how many were taken; None if there is no counter."""
        ...

    async def give_back(self, coupon_name: str, units: int) -> None:
        """Return units that were taken and not used. Does nothing if there is no counter."""
        ...

    async def learn(self, coupon_name: str, remaining_amount: int) -> None:
        """Create the counter with the database's value, unless it exists."""
        ...

    async def count(self, coupon_name: str) -> int | None:
        """Return the units left; None if there is no counter."""
        ...

    async def forget(self, coupon_name: str, count: int) -> None:
        """Delete the counter if it still has the value `count`, so that it is created again from the database."""
        ...
