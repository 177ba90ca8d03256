"""Maintenance of the database."""

from typing import Protocol

from claimsvc.domain import (
    PurgeReport,
)


class Maintenance(Protocol):
    """What keeps the database in order. To be done by anybody at any time, and by several at once.

    Every method raises `UnavailableError` as those of `Storage`. Names come in order, from just after `after`; each
    removal is one transaction, of at most `limit` rows of a table.
    """

    async def coupons_with_due_holds(self, *, after: str, limit: int) -> list[str]: ...

    async def settle_holds(self, coupon_name: str, *, limit: int) -> int:
        """Give back the units of holds that are over, of the oldest first. Returns how many."""
        ...

    async def purge_answers(self, *, limit: int) -> int:
        """Remove answers that are not given again any more. Returns how many."""
        ...

    async def purge_lists(self, *, limit: int) -> int:
        """Remove entries of lists that were replaced. Returns how many."""
        ...

    async def coupons_over(self, *, after: str, limit: int, for_days: int) -> list[str]:
        """Coupons that ended or were archived so many days ago, whichever came first."""
        ...

    async def purge_coupon(self, coupon_name: str, *, for_days: int, limit: int, actor: str) -> PurgeReport:
        """Remove claims of a coupon with their codes; if there are none, what else it has; and then the coupon.

        Nothing is removed unless it is over for so long. An audit entry of what is removed is written with it.
        """
        ...

    async def count_purgeable(self) -> PurgeReport:
        """How many answers and entries of lists could be removed."""
        ...

    async def count_coupon(self, coupon_name: str) -> PurgeReport:
        """What would have to be removed for this coupon to be gone."""
        ...
