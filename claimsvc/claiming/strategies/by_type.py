"""Claims that name a type: the oldest coupon of the type that admits the user is claimed.

The first coupons are claimed one after the other, because usually the first admits the user. If they all refuse, the
others are looked at many at a time, in one read without locks, and only those that may admit the user are claimed. The
work of one claim is bounded; what was not tried within the bound never becomes a refusal, but 503 `unavailable`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    HoldContinued,
    KeyReused,
    Queued,
    Replayed,
    UnknownCoupon,
)
from claimsvc.errors import UnavailableError
from claimsvc.ports import Coupons

# The list of claimable coupons changes slowly. If no coupon of a cached list can be claimed, the list is read again.
_CLAIMABLE_CACHED_SECONDS = 1.0
_CLAIMABLE_AT_ONCE = 100
_CACHED_PAGES = 1000
# How many coupons are claimed before the others are looked at.
_CLAIMED_FIRST = 20
# What one claim may cost: coupons tried, which is one read for each hundred, and claims, each with its transaction.
_MOST_TRIED = 2000
_MOST_CLAIMED = 100
# After any other outcome the next coupon is tried.
_FINAL_OUTCOMES = (Claimed, AlreadyClaimed, HoldContinued, Queued, Replayed, KeyReused)
# Of attempts that are only looked at.
_NO_ID = "00000000-0000-0000-0000-000000000000"

Claim = Callable[[str, str, ClaimOptions | None], Awaitable[ClaimOutcome]]
Look = Callable[[Sequence[Attempt]], Awaitable[list[ClaimOutcome | None]]]

_Page = tuple[str | None, str | None]


class FirstOfType:
    """Claims the oldest coupon of a type that admits the user.

    Args:
        claim: claims a coupon.
        look: `Admission.look`.
        coupons: lists the claimable coupons.
    """

    def __init__(self, claim: Claim, look: Look, coupons: Coupons) -> None:
        self._claim = claim
        self._look = look
        self._coupons = coupons
        # By type and the last coupon of the page before: the read of a page of claimable coupons, and when it started
        # (monotonic seconds).
        self._claimable: dict[_Page, tuple[float, asyncio.Task[list[str]]]] = {}

    async def claim(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None) -> ClaimOutcome:
        """Try coupon after coupon, until one has a final outcome or all are tried.

        With an idempotency key, only the last refusal is stored.

        Raises:
            UnavailableError: none of as many coupons as one claim may try admits the user, and there are more.
        """
        is_keyed = options is not None and options.idempotency_key is not None
        on_the_way = replace(options, is_final=False) if options is not None and is_keyed else options
        arrived_at = time.monotonic()
        # In the order in which they were tried. An empty name is of no coupon.
        tried = {"": None}
        claims = 0
        refusal: ClaimOutcome = UnknownCoupon()
        for read_since in (arrived_at - _CLAIMABLE_CACHED_SECONDS, arrived_at):
            async for page in self._claimable_pages(coupon_type, read_since):
                names = [name for name in page if name not in tried]
                first = max(0, _CLAIMED_FIRST + 1 - len(tried))
                if len(tried) - 1 + len(names) > _MOST_TRIED:
                    raise _too_many(len(tried) - 1)
                looked = await self._looked_at(names[first:], user_id, on_the_way)
                for name, outcome in zip(names, [None] * len(names[:first]) + looked, strict=True):
                    if outcome is None and claims == _MOST_CLAIMED:
                        raise _too_many(len(tried) - 1)
                    tried[name] = None
                    if outcome is None:
                        claims += 1
                        outcome = await self._claim(name, user_id, on_the_way)
                    refusal = outcome
                    if isinstance(refusal, _FINAL_OUTCOMES):
                        return refusal
        return await self._claim(next(reversed(tried)), user_id, options) if is_keyed else refusal

    async def _looked_at(
        self, names: Sequence[str], user_id: str, options: ClaimOptions | None
    ) -> list[ClaimOutcome | None]:
        """Return what each coupon would answer now; None for those that have to be claimed to know."""
        if not names:
            return []
        return await self._look([Attempt(_NO_ID, name, user_id, options) for name in names])

    async def _claimable_pages(self, coupon_type: str | None, read_since: float) -> AsyncIterator[list[str]]:
        """Yield the claimable coupons, from reads that started at `read_since` (monotonic seconds) or later."""
        after: str | None = None
        while True:
            names = await self._claimable_page((coupon_type, after), read_since)
            yield names
            if len(names) < _CLAIMABLE_AT_ONCE:
                return
            after = names[-1]

    async def _claimable_page(self, page: _Page, read_since: float) -> list[str]:
        started_at, read = self._claimable.get(page, (-1.0, None))
        if read is None or started_at < read_since:
            if len(self._claimable) >= _CACHED_PAGES:
                self._claimable.clear()
            coupon_type, after = page
            read = asyncio.create_task(
                self._coupons.claimable_coupons(coupon_type, after=after, limit=_CLAIMABLE_AT_ONCE)
            )
            self._claimable[page] = time.monotonic(), read
            read.add_done_callback(lambda ended: self._forget_failed(page, ended))
        return await asyncio.shield(read)

    def _forget_failed(self, page: _Page, read: "asyncio.Task[list[str]]") -> None:
        is_cached = self._claimable.get(page, (0, None))[1] is read
        if is_cached and (read.cancelled() or read.exception() is not None):
            del self._claimable[page]


def _too_many(tried: int) -> UnavailableError:
    return UnavailableError(
        f"none of the {tried} oldest coupons of the type admits the user, and one claim tries no more: name a coupon",
        dependency="claimsvc",
    )
