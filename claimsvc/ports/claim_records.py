"""Reading claims."""

from collections.abc import Collection
from typing import Protocol

from claimsvc.domain import Claim, ClaimPosition, ClaimState, UnknownCoupon, UserClaim


class ClaimRecords(Protocol):
    """Reads claims. Every method raises `UnavailableError` when the database does not answer in time."""

    async def claim(self, claim_id: str) -> Claim | None:
        """Return a claim; None if it does not exist."""
        ...

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        """Return the active claims of a coupon, oldest first, after the position `after`."""
        ...

    async def claims_of_user(
        self, user_id: str, *, states: Collection[ClaimState], before: ClaimPosition | None, limit: int
    ) -> list[UserClaim]:
        """Return the claims of a user, of any coupon, newest first, with their codes.

        Args:
            user_id: the user.
            states: only claims in one of these states.
            before: the position of the last claim of the previous page; None for the first page.
            limit: how many at most.
        """
        ...
