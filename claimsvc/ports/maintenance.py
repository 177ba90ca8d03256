"""Maintenance of the database."""

from typing import Protocol

from claimsvc.domain import (
    PurgeReport,
)


class Maintenance(Protocol):
    """Cleans up the database. Safe to run at any time, and concurrently.

    Every method raises `UnavailableError` when the database does not answer in time. Lists of names are ordered, and
    start after the name `after`. Each removal is one transaction of at most `limit` rows per table.
    """

    async def coupons_with_due_holds(self, *, after: str, limit: int) -> list[str]:
        """Return names of coupons with expired holds whose units were not returned yet."""
        ...

    async def settle_holds(self, coupon_name: str, *, limit: int) -> int:
        """Return the units of expired holds to stock, the earliest expired first.

        Returns:
            The number of units.
        """
        ...

    async def purge_answers(self, *, limit: int) -> int:
        """Remove stored answers that are past their retention.

        Returns:
            The number of answers removed.
        """
        ...

    async def purge_fence(self, *, limit: int) -> int:
        """Forget handed batches of more than a day ago; none of them is decided any more. Returns the number."""
        ...

    async def purge_tickets(self, *, limit: int) -> int:
        """Remove tickets that ended more than a day ago, but for dead letters.

        Returns:
            The number of tickets removed.
        """
        ...

    async def purge_lists(self, *, limit: int) -> int:
        """Remove entries of replaced lists.

        Returns:
            The number of entries removed.
        """
        ...

    async def ended_coupons(self, *, after: str, limit: int, for_days: int) -> list[str]:
        """Return names of coupons that ended or were archived, whichever came first, at least `for_days` days ago."""
        ...

    async def purge_coupon(self, coupon_name: str, *, for_days: int, limit: int, actor: str) -> PurgeReport:
        """Remove claims of a coupon with their codes, then its other rows, and finally the coupon itself.

        Its tickets that have not ended, and dead letters, are ended as expired. Removes nothing unless the coupon ended
        at least `for_days` days ago. An audit entry is written in the same transaction.

        Returns:
            The numbers of rows removed; all 0 if nothing is left to remove.
        """
        ...

    async def count_purgeable(self) -> PurgeReport:
        """Count the stored answers, entries of lists and tickets that could be removed."""
        ...

    async def count_coupon(self, coupon_name: str) -> PurgeReport:
        """Count the rows that would be removed with a coupon."""
        ...
