"""Exports for other programs."""

from collections.abc import AsyncIterator
from typing import Protocol

from claimsvc.domain import (
    UnknownCoupon,
)


class Exports(Protocol):
    """Exports data for other programs."""

    async def claims(self, coupon_name: str, *, with_codes: bool = False) -> AsyncIterator[bytes] | UnknownCoupon:
        """Return all claims of a coupon, ended ones included, oldest first, as CSV with a header, in chunks.

        Args:
            coupon_name: the coupon.
            with_codes: whether there is a last column `code`. It is empty while a claim is held.

        Raises:
            UnavailableError: the database does not answer in time. The iterator raises it too; the export is then
                incomplete.
        """
        ...
