"""Reading claims."""

from typing import Protocol

from claimsvc.domain import Claim, ClaimPosition, UnknownCoupon


class ClaimRecords(Protocol):
    """Reads claims. Both methods raise `UnavailableError` when the database does not answer in time."""

    async def claim(self, claim_id: str) -> Claim | None:
        """Return a claim; None if it does not exist."""
        ...

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        """Return the active claims of a coupon, oldest first, after the position `after`."""
        ...
