"""Counts of codes, outside the database."""

from typing import Protocol

from claimsvc.domain import (
    CodeCounts,
)


class CodeCounters(Protocol):
    """Caches the numbers of codes of each type of coupon outside the database.

    The type is None for coupons without one. Every method raises `UnavailableError` when the cache cannot be reached.
    """

    async def begin(self, coupon_type: str | None) -> int:
        """Return the sequence number of a count that starts now, higher than the numbers of all earlier ones."""
        ...

    async def put(self, coupon_type: str | None, number: int, counts: CodeCounts) -> bool:
        """Store a count, unless one with a higher number is stored.

        Returns:
            False if the cache was reset since the number was drawn: call `begin` and count again.
        """
        ...

    async def read(self, coupon_type: str | None) -> CodeCounts | None:
        """Return the stored counts; None if there are none."""
        ...
