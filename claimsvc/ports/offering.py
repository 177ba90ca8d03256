"""What becomes of coupons, of claims that were made, of codes, and who may claim."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from claimsvc.domain import (
    AlreadyCancelled,
    AlreadyRedeemed,
    AmountBelowClaimed,
    AmountIsCodes,
    AuditEntry,
    Campaign,
    Cancelled,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    Confirmed,
    Coupon,
    CouponDetail,
    CouponExists,
    Eligibility,
    HoldExpired,
    KeyReused,
    ListKind,
    ListReplaced,
    NewCode,
    Once,
    PatternTooSmall,
    PeriodIsEmpty,
    Redeemed,
    RefusedRow,
    Replayed,
    RowsRefused,
    StrategyName,
    UnknownClaim,
    UnknownCode,
    UnknownCoupon,
    Want,
)

ChangeAnswer = CouponDetail | UnknownCoupon | AmountBelowClaimed | AmountIsCodes | PeriodIsEmpty | Replayed | KeyReused


class Campaigns(Protocol):
    """Offering coupons, and changing them. Every method raises `UnavailableError` as those of `Storage`."""

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        once: Once | None = None,
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        """Offer a coupon, and keep the audit's entry of it. With `once` the answer is kept, and told again."""
        ...

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        once: Once | None = None,
    ) -> ChangeAnswer:
        """Change a coupon, and keep the audit's entry of it, or do neither. The result names no claimants.

        Args:
            change: new values by the names of `Campaign`, and `amount`; what is not there stays.
            archive: also close it for good; once it is closed it stays so.
            once: that the answer is kept, and told again to who asks again.
        """
        ...


class Transitions(Protocol):
    """What becomes of claims. Every method raises `UnavailableError` as those of `Storage`; to ask again is safe."""

    async def cancel(
        self, claim_id: str, entry: AuditEntry
    ) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim:
        """Give a claim back, held or confirmed, and exactly one unit with it; the audit's entry is of that alone.

        A code that was shown is nobody's any more. Where codes are generated a new one takes its place; of a coupon
        whose codes were brought, there is one less.
        """
        ...

    async def confirm(
        self, claim_id: str, once: Once | None = None, *, actor: str = "claimant", request_id: str | None = None
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        """Make a claim that is held its user's for good, and keep the audit's entry of it; the user itself does so,
        unless `actor` says otherwise. With `once` the answer is kept, and told again."""
        ...


class Codes(Protocol):
    """Unique codes of coupons. Every method raises `UnavailableError` as those of `Storage`."""

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        once: Once | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        """Add codes to a coupon, whose amount grows with them; with its first ones, it becomes how many they are.

        Safe to ask again: what was added is then refused as existing; or with `once`, whose answer is kept as soon as
        all is added, everything is told again.

        Args:
            atomic: all of them or none; else those that can be added, some thousand at a time.
        """
        ...

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        once: Once | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        """The same with codes that are made at random, as `GENERATION_PATTERN` describes."""
        ...

    async def redeem(
        self, code: str, entry: AuditEntry, once: Once | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
        """Use a code, once."""
        ...

    async def code(self, code: str) -> Code | None: ...

    async def count(self, coupon_type: str | None) -> CodeCounts:
        """How many codes the coupons of a type have; None for coupons without one."""
        ...

    async def expire_due(self) -> int:
        """Take codes out of stock that nobody has and that can be redeemed no more; some of them, if there are many.

        Returns how many.
        """
        ...

    async def types(self) -> list[str | None]:
        """The types of which there are coupons with codes."""
        ...


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


class Audience(Protocol):
    """Who may claim. Every method raises `UnavailableError` as those of `Storage`."""

    async def eligibility(
        self, coupon_name: str, user_id: str, want: Want, once: Once | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        """What would become of such a claim in this moment, without claiming."""
        ...

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        """Load a list, and put it in force in one moment: a claim sees the old list or the new one, and that whole.

        Nothing of it is kept if `users` raises. Of two that are loaded at the same time, the one that was begun last is
        in force in the end.

        Args:
            users: in any order, and as often as they like; some at a time.
            entry: the audit's, kept when the list is put in force, with the number of users.
        """
        ...

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        """Take a list away, if there is one; the audit's entry is of that alone."""
        ...
