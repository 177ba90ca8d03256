"""Reading coupons."""

from collections.abc import Sequence
from typing import Protocol

from claimsvc.domain import Coupon, CouponDetail, CouponFilter, ListedCoupon


class Coupons(Protocol):
    """Reads coupons. Every method raises `UnavailableError` when the database does not answer in time."""

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        """Return a coupon with its first `claimants` claimants, in one snapshot; None if there is no such coupon."""
        ...

    async def listed(self, matching: CouponFilter, *, after: str | None, limit: int) -> list[ListedCoupon]:
        """Return the coupons that match, ordered by name, after the name `after`, with their states at this moment.

        Args:
            matching: which coupons.
            after: the last name of the previous page; None for the first page.
            limit: how many at most.
        """
        ...

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        """Return the named coupons; names that do not exist are left out."""
        ...

    async def claimable_coupons(self, coupon_type: str | None, *, after: str | None, limit: int) -> list[str]:
        """Return coupons of a type that can be claimed now, oldest first, after the coupon `after`.

        If none can be claimed at all, return the one that starts next, so that claims of the type are told when to come
        back; otherwise the newest, and nothing if there is no coupon of the type.

        Args:
            coupon_type: the type; None for coupons without a type.
            after: the last coupon of the previous page; None for the first page.
            limit: how many at most.
        """
        ...
