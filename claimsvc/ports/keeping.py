"""What decides claims, and keeps them."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from claimsvc.domain import (
    Attempt,
    AuditEntry,
    AuditFilter,
    AuditPosition,
    Claim,
    ClaimPosition,
    Coupon,
    CouponDetail,
    Erased,
    Outcome,
    PurgeReport,
    UnknownCoupon,
)
from claimsvc.errors import ClaimsvcError


class AuditLog(Protocol):
    """Who did what, kept for ever. Each raises `UnavailableError` when the database does not answer in time."""

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry; it is committed when this returns."""
        ...

    async def entries(self, asked: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        """What was done, newest first, from just after the position `after`.

        Of one claim its making is told too, as its row has it: most claims have no entry of their own.
        """
        ...


class Exports(Protocol):
    """What is handed on to other programs, in whole."""

    async def claims(self, coupon_name: str) -> AsyncIterator[bytes] | UnknownCoupon:
        """Every claim of a coupon that there was, oldest first, as CSV with a line of names, in parts.

        Raises:
            UnavailableError: the database does not answer in time; so does the iterator, and then it is not whole.
        """
        ...


class Erasure(Protocol):
    """Forgetting users."""

    async def erase(self, user_id: str, *, actor: str, request_id: str | None = None) -> Erased:
        """Have nothing name this user any more, and keep all counts. It is audited, without the user.

        What the user does meanwhile may be left over, and whatever is done before this fails stays done: it is safe to
        ask again.

        Raises:
            UnavailableError: the database does not answer in time.
        """
        ...


Decision = Outcome | ClaimsvcError
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

    async def look(self, attempts: Sequence[Attempt]) -> list[Outcome | None]:
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

    async def on_offer(self, coupon_type: str | None) -> list[str]:
        """The first coupons of a type, or of any, that can be claimed now, oldest first.

        If there are none, the newest that cannot; none at all if there is no coupon of the type.
        """
        ...


class Upkeep(Protocol):
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
