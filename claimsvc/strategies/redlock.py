"""Claims under the coupon's lock: one claimant's process at a time works on a coupon, for all that wait in it."""

import time
from collections.abc import Sequence

from claimsvc.batching import Batcher, CouponQueue
from claimsvc.domain import Outcome
from claimsvc.errors import LockBusyError
from claimsvc.ports import BatchObserver, Lock, Storage


class RedlockStrategy:
    """`ports.Strategy`: take the lock, then let one transaction decide all waiting claims, batch after batch.

    The lock gives order and keeps contention away from the database. It may have two holders after all (a pause
    longer than its TTL, a master that forgot it); the transaction is correct then too.

    Args:
        slice_seconds: how long the lock is held while claims keep coming, so that other instances get their turn.
        lock_patience_seconds: how long a claim waits for the lock at most.
        patience_seconds: how long a claim waits for anything else at most.
        batch_size, waiting_limit: see `Batcher`.
    """

    name = "redlock"

    def __init__(
        self,
        lock: Lock,
        storage: Storage,
        *,
        slice_seconds: float,
        lock_patience_seconds: float,
        patience_seconds: float,
        batch_size: int,
        waiting_limit: int,
        observer: BatchObserver,
    ) -> None:
        self._lock = lock
        self._storage = storage
        self._slice_seconds = slice_seconds
        self._batcher = Batcher(
            self,
            batch_size=batch_size,
            waiting_limit=waiting_limit,
            concurrent_rounds=waiting_limit,
            lock_patience_seconds=lock_patience_seconds,
            patience_seconds=patience_seconds,
            observer=observer,
        )

    async def claim(self, coupon_name: str, user_id: str) -> Outcome:
        return await self._batcher.submit(coupon_name, user_id)

    async def drain(self) -> None:
        await self._batcher.drain()

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        return queues

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        waiting_since = time.monotonic()
        queue.waits_for_lock = True
        try:
            async with self._lock.hold(queue.coupon_name) as lease:
                queue.waits_for_lock = False
                slice_ends = time.monotonic() + min(self._slice_seconds, lease.seconds_left())
                while queue and time.monotonic() < slice_ends:
                    await self._admit_batch(queue)
        except LockBusyError as error:
            # Who came later than the first attempt still has time left, and is led on by the next round.
            queue.refuse(error, arrived_before=waiting_since)

    async def _admit_batch(self, queue: CouponQueue) -> None:
        batch = queue.take()
        if not batch.attempts:
            return
        try:
            batch.answer(await self._storage.admit(queue.coupon_name, batch.attempts))
        except BaseException as error:
            batch.fail(error)
            raise
