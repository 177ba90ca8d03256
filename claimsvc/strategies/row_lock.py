"""Claims by the database's row lock alone: no Redis, and PostgreSQL keeps the line."""

from collections.abc import Coroutine, Sequence
from typing import Any

from claimsvc.batching import Batcher, BatchLimits, CouponQueue, WaitingRoom, decide, take_from
from claimsvc.domain import Outcome, StrategyName
from claimsvc.ports import BatchObserver, Storage


class RowLockStrategy:
    """`ports.Strategy`: one transaction decides all claims that wait in this process; rows make instances queue."""

    name = StrategyName.ROW_LOCK

    def __init__(self, storage: Storage, *, limits: BatchLimits, room: WaitingRoom, observer: BatchObserver) -> None:
        self._storage = storage
        self._batcher = Batcher(self, limits, room, observer)

    def claim(self, coupon_name: str, user_id: str) -> Coroutine[Any, Any, Outcome]:
        return self._batcher.submit(coupon_name, user_id)

    async def drain(self) -> None:
        await self._batcher.drain()

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        while batches := take_from(queues):
            await decide(batches, self._storage.admit)
        return ()

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        raise AssertionError("no queue ever has to wait for its turn")
