"""Claims under the coupon's lock: one claimant's process at a time works on a coupon, for all that wait in it."""

import time
from collections.abc import Sequence
from itertools import islice

from claimsvc.batching import Batch, Batcher, CouponQueue
from claimsvc.domain import Outcome
from claimsvc.errors import LockBusyError
from claimsvc.ports import BatchObserver, Lease, Lock, Storage

# While one round waits for PostgreSQL, the next takes its locks. More make smaller rounds, and so more of them.
_CONCURRENT_ROUNDS = 2


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
            concurrent_rounds=_CONCURRENT_ROUNDS,
            lock_patience_seconds=lock_patience_seconds,
            patience_seconds=patience_seconds,
            observer=observer,
        )

    async def claim(self, coupon_name: str, user_id: str) -> Outcome:
        return await self._batcher.submit(coupon_name, user_id)

    async def drain(self) -> None:
        await self._batcher.drain()

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        async with self._lock.hold_free([queue.coupon_name for queue in queues]) as lease:
            ours = [queue for queue in queues if queue.coupon_name in lease.coupon_names]
            await self._serve(ours, lease)
        return [queue for queue in queues if queue not in ours or (queue and queue.coupon_name in lease.handed_over)]

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        its_anothers_turn = True
        while queue and its_anothers_turn:
            waiting_since = time.monotonic()
            queue.waits_for_lock = True
            try:
                async with self._lock.hold(queue.coupon_name, was_busy=True) as lease:
                    queue.waits_for_lock = False
                    await self._serve([queue], lease)
                its_anothers_turn = bool(lease.handed_over)
            except LockBusyError as error:
                # Who came later than this wait began has some time left.
                queue.refuse(error, arrived_before=waiting_since)

    async def _serve(self, queues: Sequence[CouponQueue], lease: Lease) -> None:
        """Admit batch after batch until nobody waits, or until it is another instance's turn."""
        slice_ends = time.monotonic() + self._slice_seconds
        while any(queues):
            batches = [batch for queue in queues if (batch := queue.take()).attempts]
            await self._admit(batches)
            if time.monotonic() >= slice_ends:
                if lease.seconds_left() < self._slice_seconds or await lease.is_wanted():
                    return
                slice_ends = time.monotonic() + self._slice_seconds

    async def _admit(self, batches: Sequence[Batch]) -> None:
        """One transaction for all of them, in which each gets its own answers."""
        try:
            decisions = iter(await self._storage.admit([attempt for batch in batches for attempt in batch.attempts]))
        except BaseException as error:
            for batch in batches:
                batch.fail(error)
            raise
        for batch in batches:
            batch.answer(list(islice(decisions, len(batch.attempts))))
