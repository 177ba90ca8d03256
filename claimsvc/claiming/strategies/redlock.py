"""Claims under the coupon's lock: one instance at a time works on a coupon, for all that wait in it."""

import asyncio
import time
from collections.abc import Sequence

from claimsvc.claiming.batching import BatchLimits, CouponQueue, WaitingRoom, decide_next
from claimsvc.claiming.strategies.batched import BatchedStrategy
from claimsvc.domain import StrategyName
from claimsvc.errors import LockBusyError
from claimsvc.ports import BatchObserver, Lease, Lock, LockWait, Storage

# A batch of so many shows that a coupon is busy; the next one then gets a moment to grow as large.
_BUSY_BATCH = 8
_LINGER_TURNS = 4
_LINGER_TURN_SECONDS = 0.0005
# Where nobody waited for the lock, it is asked so much less often whether somebody does by now: that costs as much as
# some claims, too.
_SLICES_WHILE_ALONE = 4


class RedlockStrategy(BatchedStrategy):
    """`ports.Strategy`: take the locks, then let one transaction decide all waiting claims, batch after batch.

    The lock gives order and keeps contention away from the database. It may have two holders after all (a pause
    longer than its TTL, a master that forgot it); the transaction is correct then too.

    Args:
        slice_seconds: how long a lock is held while claims keep coming, before other instances get their turn.
    """

    name = StrategyName.REDLOCK

    def __init__(
        self,
        lock: Lock,
        storage: Storage,
        *,
        slice_seconds: float,
        limits: BatchLimits,
        room: WaitingRoom,
        observer: BatchObserver,
    ) -> None:
        super().__init__(limits, room, observer)
        self._lock = lock
        self._storage = storage
        self._slice_seconds = slice_seconds

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        wait = LockWait(time.monotonic())
        for queue in queues:
            queue.lock_wait = wait
        async with self._lock.hold_free([queue.coupon_name for queue in queues]) as lease:
            wait.had_at = time.monotonic()
            ours = set(lease.coupon_names)
            await self._serve([queue for queue in queues if queue.coupon_name in ours], lease)
        ours -= set(lease.handed_over)
        return [queue for queue in queues if queue and queue.coupon_name not in ours]

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        its_anothers_turn = True
        while queue and its_anothers_turn:
            waiting_since = time.monotonic()
            queue.waits_for_lock = True
            wait = queue.lock_wait = LockWait(waiting_since)
            try:
                async with self._lock.hold(queue.coupon_name, was_busy=True) as lease:
                    wait.had_at = time.monotonic()
                    queue.waits_for_lock = False
                    await self._serve([queue], lease)
                its_anothers_turn = bool(lease.handed_over)
            except LockBusyError as error:
                # Who came later than this wait began has some time left.
                queue.refuse(error, arrived_before=waiting_since)

    async def _serve(self, queues: Sequence[CouponQueue], lease: Lease) -> None:
        """Admit batch after batch until nobody waits, or until it is another instance's turn.

        Whether another waits is asked while a batch is being decided, so that nobody waits for that answer.
        """
        slice_ends = time.monotonic() + self._slice_seconds
        wanted: asyncio.Task[bool] | None = None
        try:
            while batches := await decide_next(queues, self._storage.admit):
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
    """Give most of those who were just answered a moment to be followed by others.

    A few large batches cost less than many small ones, and taking a lock again costs as much as some claims do.
    """
    for _ in range(_LINGER_TURNS):
        if 4 * len(queue) >= 3 * answered:
            return  # the rest can come while these are being decided
        # Not by the clock alone: in a busy process one turn of the event loop can take longer than all of them should.
        await asyncio.sleep(_LINGER_TURN_SECONDS)
