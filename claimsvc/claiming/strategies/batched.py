"""The base class of all strategies: it batches claims, and a subclass decides the batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from claimsvc.claiming.batching import Batcher, BatchLimits, CouponQueue, WaitingRoom
from claimsvc.domain import StrategyName
from claimsvc.ports import BatchObserver


class BatchedStrategy(ABC):
    """`ports.Strategy` that decides claims batch by batch. A subclass implements `lead`."""

    name: StrategyName

    def __init__(self, limits: BatchLimits, room: WaitingRoom, observer: BatchObserver) -> None:
        self._batcher = Batcher(self, limits, room, observer)
        self.claim = self._batcher.submit
        self.drain = self._batcher.drain

    @abstractmethod
    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        """See `batching.Leader`."""

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        """See `batching.Leader`. A strategy whose `lead` returns no queues need not implement it."""
        raise AssertionError(f"{self.name} never makes a queue wait")
