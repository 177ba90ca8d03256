"""The counter strategy: a counter in Redis filters claims, so that a sold-out coupon costs no row locks."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import starmap

from claimsvc.claiming.batching import BatchLimits, CouponQueue, WaitingRoom, decide_next
from claimsvc.claiming.strategies.batched import BatchedStrategy
from claimsvc.domain import Attempt, Claimed, StrategyName
from claimsvc.errors import UnavailableError
from claimsvc.ports import Admission, BatchObserver, Counters, Coupons, Decision


class CounterStrategy(BatchedStrategy):
    """`ports.Strategy`: one atomic script takes units for a batch; PostgreSQL decides the claims that got one.

    The counter only sorts claims. PostgreSQL decides those that got a unit. Those that got none are refused only after
    a read of the database, which takes no lock. So the counter may drift either way, after a crash or after Redis lost
    data, without causing a wrong outcome.
    """

    name = StrategyName.COUNTER

    def __init__(
        self,
        counters: Counters,
        admission: Admission,
        coupons: Coupons,
        *,
        limits: BatchLimits,
        room: WaitingRoom,
        observer: BatchObserver,
    ) -> None:
        super().__init__(limits, room, observer)
        self._counters = counters
        self._admission = admission
        self._coupons = coupons

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        while await decide_next(queues, self._admit) and not self._batcher.is_crowded:
            pass
        return ()

    async def _admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide attempts on one coupon or several. Returns the decisions in the order of the attempts."""
        wanted = Counter(attempt.coupon_name for attempt in attempts)
        taken = dict(zip(wanted, await asyncio.gather(*starmap(self._take, wanted.items())), strict=True))
        units = Counter(taken)
        admitted: list[Attempt] = []
        refused: list[Attempt] = []
        for attempt in attempts:
            (admitted if units[attempt.coupon_name] > 0 else refused).append(attempt)
            units[attempt.coupon_name] -= 1
        decisions = dict(zip(admitted, await self._admit_taken(admitted), strict=True))
        try:
            decisions.update(zip(refused, await self._refuse(refused), strict=True))
        except UnavailableError as error:
            # The attempts above are committed, so they keep their decisions although these failed.
            decisions.update(dict.fromkeys(refused, error))
        return [decisions[attempt] for attempt in attempts]

    async def _take(self, coupon_name: str, units: int) -> int:
        """Take up to `units` from the counter. Returns how many were taken; 0 if Redis is unavailable."""
        try:
            taken = await self._counters.take(coupon_name, units)
            if taken is None:
                # Redis has no count yet, or has lost it: read it from PostgreSQL.
                for coupon in await self._coupons.stock([coupon_name]):
                    await self._counters.learn(coupon_name, coupon.remaining_amount)
                    taken = await self._counters.take(coupon_name, units)
        except UnavailableError as error:
            if error.dependency != "redis":
                raise
            return 0
        return taken or 0

    async def _admit_taken(self, attempts: Sequence[Attempt]) -> list[Decision]:
        if not attempts:
            return []
        decisions = await self._admission.admit(attempts)
        unused = Counter(
            attempt.coupon_name
            for attempt, decision in zip(attempts, decisions, strict=True)
            if not isinstance(decision, Claimed)
        )
        for coupon_name, units in unused.items():
            # A failure here does not change the decisions. The reconciler corrects a count that stays too low.
            with suppress(UnavailableError):
                await self._counters.give_back(coupon_name, units)
        return decisions

    async def _refuse(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide the attempts that got no unit. PostgreSQL refuses them, or admits them if the count was too low."""
        if not attempts:
            return []
        outcomes = await self._admission.look(attempts)
        undecided = [attempt for attempt, outcome in zip(attempts, outcomes, strict=True) if outcome is None]
        decided = iter(await self._admission.admit(undecided) if undecided else ())
        return [next(decided) if outcome is None else outcome for outcome in outcomes]
