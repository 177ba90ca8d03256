"""The redlock strategy: an instance takes the coupon's lock, then decides all claims that wait in its process."""

import asyncio
import time
from collections.abc import Sequence

from claimsvc.claiming.batching import BatchLimits, CouponQueue, WaitingRoom, decide_next
from claimsvc.claiming.strategies.batched import BatchedStrategy
from claimsvc.domain import StrategyName
from claimsvc.errors import LockBusyError
from claimsvc.ports import Admission, BatchObserver, Lease, Lock, LockWait

# A batch of this size shows that a coupon is busy; the next batch then gets a moment to fill.
_BUSY_BATCH = 8
_LINGER_TURNS = 4
_LINGER_TURN_SECONDS = 0.0005
# While no other instance waits for the lock, the check for waiting instances is this many times rarer: a check costs
# as much as several claims.
_SLICES_WHILE_ALONE = 4


class RedlockStrategy(BatchedStrategy):
    """`ports.Strategy`: take the locks, then decide the waiting claims batch by batch, one transaction for each.

    The lock only orders claims and keeps contention away from the database. If it has two holders (after a pause
    longer than its TTL, or when a master lost the key), the transactions still decide correctly.

    Args:
        slice_seconds: how long a lock is held while claims keep arriving and other instances wait for it.
    """

    name = StrategyName.REDLOCK

    def __init__(
        self,
        lock: Lock,
        admission: Admission,
        *,
        slice_seconds: float,
        limits: BatchLimits,
        room: WaitingRoom,
        observer: BatchObserver,
    ) -> None:
        super().__init__(limits, room, observer)
        self._lock = lock
        self._admission = admission
        self._slice_seconds = slice_seconds

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        wait = LockWait(time.monotonic())
        for queue in queues:
            queue.lock_wait = wait
        async with self._lock.hold_free([queue.coupon_name for queue in queues]) as lease:
            wait.had_at = time.monotonic()
            locked = set(lease.coupon_names)
            await self._serve([queue for queue in queues if queue.coupon_name in locked], lease)
        locked -= set(lease.handed_over)
        return [queue for queue in queues if queue and queue.coupon_name not in locked]

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        handed_over = True
        while queue and handed_over:
            waiting_since = time.monotonic()
            queue.waits_for_lock = True
            wait = queue.lock_wait = LockWait(waiting_since)
            try:
                async with self._lock.hold(queue.coupon_name, was_busy=True) as lease:
                    wait.had_at = time.monotonic()
                    queue.waits_for_lock = False
                    await self._serve([queue], lease)
                handed_over = bool(lease.handed_over)
            except LockBusyError as error:
                # Claims that arrived after this wait began have time left.
                queue.refuse(error, arrived_before=waiting_since)

    async def _serve(self, queues: Sequence[CouponQueue], lease: Lease) -> None:
        """Admit batch after batch until no claims wait, or until the time slice ends and another instance waits.

        The check for waiting instances runs while a batch is being decided, so that claims do not wait for it.
        """
        slice_ends = time.monotonic() + self._slice_seconds
        wanted: asyncio.Task[bool] | None = None
        try:
            while batches := await decide_next(queues, self._admission.admit):
                now = time.monotonic()
                if wanted is None and now >= slice_ends - self._slice_seconds / 2:
                    wanted = asyncio.create_task(lease.is_wanted())
                if now >= slice_ends and wanted is not None:
                    if lease.seconds_left() < _SLICES_WHILE_ALONE * self._slice_seconds or await wanted:
                        return
                    wanted = None
                    slice_ends = time.monotonic() + _SLICES_WHILE_ALONE * self._slice_seconds
                if len(queues) == 1 and len(batches[0].attempts) >= _BUSY_BATCH:
                    await _next_arrivals(queues[0], len(batches[0].attempts))
        finally:
            if wanted is not None:
                await asyncio.wait([wanted])


async def _next_arrivals(queue: CouponQueue, answered: int) -> None:
    """Wait briefly until the queue has most of the size of the last batch.

    A few large batches cost less than many small ones, and taking the lock again costs as much as several claims.

    Args:
        answered: number of claims in the last batch.
    """
    for _ in range(_LINGER_TURNS):
        if 4 * len(queue) >= 3 * answered:
            return  # the others can arrive while these are being decided
        # Turns are counted, because in a busy process one turn of the event loop can outlast any time limit.
        await asyncio.sleep(_LINGER_TURN_SECONDS)
