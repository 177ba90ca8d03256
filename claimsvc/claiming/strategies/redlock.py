"""The redlock strategy: an instance takes the coupon's lock, then decides all claims that wait in its process."""

import asyncio
import time
from collections.abc import Sequence

from claimsvc.claiming.batching import Admit, BatchLimits, CouponQueue, WaitingRoom, decide_next, outcome_unknown
from claimsvc.claiming.combining import Combiner, Desk
from claimsvc.claiming.strategies.batched import BatchedStrategy
from claimsvc.domain import Attempt, StrategyName
from claimsvc.errors import ClaimsvcError, LockBusyError
from claimsvc.ports import BatchObserver, Decision, FencedAdmission, Lease, Lock, LockWait

# A batch of this size shows that a coupon is busy; the next batch then gets a moment to fill.
_BUSY_BATCH = 8
_LINGER_TURNS = 4
_LINGER_TURN_SECONDS = 0.0005
# While no other instance waits for the lock, the check for waiting instances is this many times rarer: a check costs
# as much as several claims.
_SLICES_WHILE_ALONE = 4


_HELD_ELSEWHERE_SECONDS = 1.0


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
        admission: FencedAdmission,
        *,
        slice_seconds: float,
        limits: BatchLimits,
        room: WaitingRoom,
        observer: BatchObserver,
        combiner: Combiner | None = None,
    ) -> None:
        super().__init__(limits, room, observer)
        self._combiner = combiner
        # Coupons whose lock another instance held lately, and until when that is assumed (monotonic seconds).
        self._held_elsewhere: dict[str, float] = {}
        self._lock = lock
        self._admission = admission
        self._slice_seconds = slice_seconds

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        wait = LockWait(time.monotonic())
        elsewhere = [queue for queue in queues if self._held_elsewhere.get(queue.coupon_name, 0) > wait.wanted_at]
        if elsewhere:
            queues = [queue for queue in queues if queue not in elsewhere]
            if not queues:
                return elsewhere
        for queue in queues:
            queue.lock_wait = wait
        async with self._lock.hold_free([queue.coupon_name for queue in queues]) as lease:
            wait.had_at = time.monotonic()
            locked = set(lease.coupon_names)
            await self._serve([queue for queue in queues if queue.coupon_name in locked], lease)
        locked -= set(lease.handed_over)
        return elsewhere + [queue for queue in queues if queue and queue.coupon_name not in locked]

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        handed_over = True
        while queue and handed_over:
            if self._combiner is not None and await self._combine(self._combiner, queue):
                continue
            self._held_elsewhere.pop(queue.coupon_name, None)
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

    async def _combine(self, combiner: Combiner, queue: CouponQueue) -> bool:
        """Hand the next batch of a queue to the holder of its lock. Returns False if nobody takes it."""
        batch = queue.take()
        if not batch.attempts:
            return True
        journey = await combiner.hand(queue.coupon_name, batch.attempts)
        if journey is None:
            queue.put_back(batch)
            return False
        try:
            decisions = journey.decisions
            if decisions is None:
                if await self._admission.withhold(journey.batch):
                    queue.put_back(batch)
                    return False
                decisions = await self._admission.recall(journey.batch)
        except ClaimsvcError:
            batch.fail(outcome_unknown())
            return True
        self._held_elsewhere[queue.coupon_name] = time.monotonic() + _HELD_ELSEWHERE_SECONDS
        batch.answer(decisions)
        await _next_arrivals(queue, len(batch.attempts))
        return True

    async def _serve(self, queues: Sequence[CouponQueue], lease: Lease) -> None:
        if self._combiner is None or not queues:
            await self._serve_alone(queues, lease)
            return
        with self._combiner.desk([queue.coupon_name for queue in queues]) as desk:
            await self._serve_alone(queues, lease, desk)

    async def _serve_alone(self, queues: Sequence[CouponQueue], lease: Lease, desk: Desk | None = None) -> None:
        """Admit batch after batch until no claims wait, or until the time slice ends and another instance waits.

        The check for waiting instances runs while a batch is being decided, so that claims do not wait for it.
        """
        slice_ends = time.monotonic() + self._slice_seconds
        admit: Admit = self._admission.admit

        async def combined(attempts: Sequence[Attempt]) -> Sequence[Decision]:
            if desk is None or not desk:
                if desk is not None:
                    desk.last = 0
                return await self._admission.admit(attempts)
            return await desk.admit(self._admission, attempts)

        if desk is not None:
            admit = combined
        wanted: asyncio.Task[bool] | None = None
        try:
            while (batches := await decide_next(queues, admit)) or desk:
                if not batches and desk:
                    await combined(())
                now = time.monotonic()
                if wanted is None and now >= slice_ends - self._slice_seconds / 2:
                    wanted = asyncio.create_task(lease.is_wanted())
                if now >= slice_ends and wanted is not None:
                    if lease.seconds_left() < _SLICES_WHILE_ALONE * self._slice_seconds or await wanted:
                        return
                    wanted = None
                    slice_ends = time.monotonic() + _SLICES_WHILE_ALONE * self._slice_seconds
                size = len(batches[0].attempts) if batches else 0
                if len(queues) == 1 and size + (desk.last if desk is not None else 0) >= _BUSY_BATCH:
                    await _next_arrivals(queues[0], size, desk)
        finally:
            if wanted is not None:
                await asyncio.wait([wanted])


async def _next_arrivals(queue: CouponQueue, answered: int, desk: Desk | None = None) -> None:
    """Wait briefly until the queue has most of the size of the last batch.

    A few large batches cost less than many small ones, and taking the lock again costs as much as several claims.

    Args:
        answered: number of claims in the last batch.
    """
    for _ in range(_LINGER_TURNS):
        if 4 * len(queue) >= 3 * answered and (desk is None or 4 * desk.claims >= 3 * desk.last):
            return  # the others can arrive while these are being decided
        # Turns are counted, because in a busy process one turn of the event loop can outlast any time limit.
        await asyncio.sleep(_LINGER_TURN_SECONDS)
