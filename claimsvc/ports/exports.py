"""Exports for other programs."""

from collections.abc import AsyncIterator
from typing import Protocol

from claimsvc.domain import (
    UnknownCoupon,
)


class Exports(Protocol):
    """What is handed on to other programs, in whole."""

    async def claims(self, coupon_name: str) -> AsyncIterator[bytes] | UnknownCoupon:
        """Every claim of a coupon that there was, oldest first, as CSV with a line of names, in parts.

        Raises:
            UnavailableError: the database does not answer in time; so does the iterator, and then it is not whole.
        """
        ...
