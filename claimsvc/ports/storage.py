"""Coupons and claims at rest."""

from collections.abc import Sequence
from typing import Protocol

from claimsvc.domain import (
    Attempt,
    Claim,
    ClaimOutcome,
    ClaimPosition,
    Coupon,
    CouponDetail,
    UnknownCoupon,
)
from claimsvc.errors import ClaimsvcError

Decision = ClaimOutcome | ClaimsvcError
"""What became of one attempt among several: its outcome, or why it alone has none."""


class Storage(Protocol):
    """Coupons and claims at rest. PostgreSQL alone decides who gets a unit.

    Every method raises `UnavailableError` when the database does not answer in time.
    """

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide the attempts, of one coupon or several, in one transaction and in their order.

        The answers come in that order too, once they are committed.

        An attempt that cannot be written does not sink the others: it has its error for an answer.

        Correct whoever else calls it at the same time, with the lock or without it. Who holds a claim already gets
        `AlreadyClaimed` and takes no stock; the same user twice in `attempts` is admitted once.
        """
        ...

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        """What can be said of the attempts without deciding them, in their order: all but `Claimed`.

        None for a user who holds no claim while something is left. Takes no lock and waits for nobody.
        """
        ...

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        """The coupon with its first `claimants` claimants, in one snapshot; None if there is no such coupon."""
        ...

    async def coupons(self, *, search: str | None, after: str | None, limit: int) -> list[Coupon]:
        """Coupons by name, those that contain `search` (case-insensitive), from just after the name `after`."""
        ...

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        """The active claims of a coupon, oldest first, from just after the position `after`."""
        ...

    async def claim(self, claim_id: str) -> Claim | None: ...

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        """Those of the named coupons that exist."""
        ...

    async def check(self) -> None:
        """Raise `UnavailableError`, saying what is wrong, unless the database answers with the current schema."""
        ...


class Shelf(Storage, Protocol):
    """Storage that knows what may be claimed."""

    async def claimable_coupons(self, coupon_type: str | None) -> list[str]:
        """The first coupons of a type, or of any, that can be claimed now, oldest first.

        If there are none, the newest that cannot; none at all if there is no coupon of the type.
        """
        ...
