"""The row_lock strategy: PostgreSQL's row lock queues the instances; Redis is not used."""

from collections.abc import Sequence

from claimsvc.claiming.batching import BatchLimits, CouponQueue, WaitingRoom, decide_next
from claimsvc.claiming.strategies.batched import BatchedStrategy
from claimsvc.domain import StrategyName
from claimsvc.ports import Admission, BatchObserver


class RowLockStrategy(BatchedStrategy):
    """`ports.Strategy`: one transaction decides all claims that wait in this process; row locks order the instances."""

    name = StrategyName.ROW_LOCK

    def __init__(
        self, admission: Admission, *, limits: BatchLimits, room: WaitingRoom, observer: BatchObserver
    ) -> None:
        super().__init__(limits, room, observer)
        self._admission = admission

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        while await decide_next(queues, self._admission.admit) and not self._batcher.is_crowded:
            pass
        return ()
