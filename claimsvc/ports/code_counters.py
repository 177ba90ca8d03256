"""Counts of codes, outside the database."""

from typing import Protocol

from claimsvc.domain import (
    CodeCounts,
)


class CodeCounters(Protocol):
    """Counts of the codes of a type (None for coupons without one), kept outside the database for whoever reads them.

    Every method raises `UnavailableError` when they cannot be reached.
    """

    async def begin(self, coupon_type: str | None) -> int:
        """A number for a count that begins now, higher than those of all that have begun before."""
        ...

    async def put(self, coupon_type: str | None, number: int, counts: CodeCounts) -> bool:
        """Keep this count, unless one with a higher number is kept. Whether the number is known: else begin anew."""
        ...

    async def read(self, coupon_type: str | None) -> CodeCounts | None:
        """The counts that are kept; None if there are none."""
        ...
