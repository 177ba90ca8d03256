"""The redlock strategy: an instance takes the coupon's lock, then decides all claims that wait in its process.

The claims of other instances, too, if these hand them over: see `claiming.combining`.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

from claimsvc.claiming.batching import (
    BUSY_ROUND,
    Batch,
    BatchLimits,
    CouponQueue,
    WaitingRoom,
    decide_next,
    outcome_unknown,
)
from claimsvc.claiming.combining import ANSWER_SECONDS, Combiner, Desk
from claimsvc.claiming.strategies.batched import BatchedStrategy
from claimsvc.domain import Attempt, Claim, Claimed, ClaimState, StrategyName
from claimsvc.errors import ClaimsvcError, LockBusyError
from claimsvc.ports import (
    AllClaimed,
    BatchDecisions,
    BatchObserver,
    Decision,
    FencedAdmission,
    HandedBatch,
    HandOver,
    Lease,
    Lock,
    LockWait,
)

# A batch of this size shows that a coupon is busy; the next batch then gets a moment to fill.
_BUSY_BATCH = 8
# A lock that was busy in a busy round is tried again in so many more rounds before its queue waits, unless its claims
# have waited for so long.
_MISSES = 2
_MISSING_SECONDS = 0.1
_LINGER_TURNS = 2
_LINGER_TURN_SECONDS = 0.001  # the resolution of uvloop's timers; half of it is no time at all
# For how long a lock is kept without claims, if its holder has decided for others.
_KEPT_TURNS = 8
_KEPT_TURN_SECONDS = 0.001
# While no other instance waits for the lock, the check for waiting instances is this many times rarer: a check costs
# as much as several claims.
_SLICES_WHILE_ALONE = 4
# How long an instance decides the claims of others before it hands that duty on.
_DUTY_SECONDS = 1.0
# For how long a coupon's lock is assumed to be held by another instance that decided claims handed to it.
_HELD_ELSEWHERE_SECONDS = 1.0
# For how long nothing is handed to a holder that did not answer.
_SILENT_SECONDS = 1.0
# Attempts at a lock that seems free, before its queue waits in line.
_TRIES = 3
_REMEMBERED = 10_000


class RedlockStrategy(BatchedStrategy):
    """`ports.Strategy`: take the locks, then decide the waiting claims batch by batch, one transaction for each.

    The lock only orders claims and keeps contention away from the database. If it has two holders (after a pause
    longer than its TTL, or when a master lost the key), the transactions still decide correctly.

    Args:
        slice_seconds: how long a lock is held while claims keep arriving and other instances wait for it.
        combiner: hands batches to the holders of locks, and receives theirs; None to wait in line instead.
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
        self._lock = lock
        self._admission = admission
        self._slice_seconds = slice_seconds
        self._lock_timeout_seconds = limits.lock_timeout_seconds
        self._combiner = combiner
        # Until when (monotonic seconds) a coupon's lock is assumed to be held by an instance that combines, and until
        # when by one that does not.
        self._held_elsewhere: dict[str, float] = {}
        self._silent: dict[str, float] = {}
        self._sold_out: set[str] = set()

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        wait = LockWait(time.monotonic())
        sold_out = [queue for queue in queues if queue.coupon_name in self._sold_out]
        if len(sold_out) > 1:
            await self._look(sold_out)
        # Those that need no lock, or not from here, go on in tasks of their own.
        elsewhere = [
            queue
            for queue in queues
            if queue.coupon_name in self._sold_out or self._held_elsewhere.get(queue.coupon_name, 0.0) > wait.wanted_at
        ]
        queues = [queue for queue in queues if queue and queue not in elsewhere]
        if not queues:
            return [queue for queue in elsewhere if queue]
        for queue in queues:
            queue.lock_wait = wait
        async with self._lock.hold_free([queue.coupon_name for queue in queues]) as lease:
            wait.had_at = time.monotonic()
            locked = set(lease.coupon_names)
            await self._serve([queue for queue in queues if queue.coupon_name in locked], lease, in_round=True)
        locked -= set(lease.handed_over)
        missed = [queue for queue in queues if queue and queue.coupon_name not in locked]
        again = self._tried_again(missed, lease.handed_over) if len(queues) >= BUSY_ROUND else ()
        return elsewhere + [queue for queue in missed if queue not in again]

    def _tried_again(self, missed: Sequence[CouponQueue], handed_over: Sequence[str]) -> Sequence[CouponQueue]:
        """Return the queues that take part in the next round, because their locks will be free soon.

        Where many coupons are claimed from, another instance holds them for a round like this one. A message or a
        place in line would be for a claim or two, at the price of many. Coupons of which batches were handed over of
        late are different: they are busy.
        """
        combined_since = time.monotonic() - _HELD_ELSEWHERE_SECONDS
        again = [
            queue
            for queue in missed
            if queue.misses < _MISSES
            and len(queue) < _BUSY_BATCH
            and queue.longest_wait() < _MISSING_SECONDS
            and queue.coupon_name not in handed_over
            and self._held_elsewhere.get(queue.coupon_name, 0.0) < combined_since
        ]
        for queue in again:
            queue.misses += 1
        return again

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        tries = _TRIES
        while queue:
            if queue.coupon_name in self._sold_out:
                looked = await self._look([queue])
                if looked >= _BUSY_BATCH:
                    await _next_arrivals(queue, None)
            elif self._combiner is None or not tries or not self._may_hand_over(queue):
                if not await self._wait_in_line(queue):
                    return
                tries = _TRIES
            else:
                found = await self._hand_over(self._combiner, queue)
                if found is HandOver.FREE and queue:
                    tries = _TRIES if await self._take_turn(queue) else tries - 1
                elif found is not HandOver.SENT:
                    tries = 0

    def _may_hand_over(self, queue: CouponQueue) -> bool:
        """Whether the holder is not silent, and the claims have time to wait for its answer, whatever it is."""
        is_silent = self._silent.get(queue.coupon_name, 0.0) > time.monotonic()
        return not is_silent and not self._is_late(queue)

    def _is_late(self, queue: CouponQueue) -> bool:
        """Whether its first claim has too little time left to wait for another holder."""
        return queue.longest_wait() + ANSWER_SECONDS > self._lock_timeout_seconds

    async def _wait_in_line(self, queue: CouponQueue) -> bool:
        """Wait for the lock and serve the queue. Returns whether another instance was woken, and goes first now."""
        waiting_since = time.monotonic()
        queue.waits_for_lock = True
        wait = queue.lock_wait = LockWait(waiting_since)
        try:
            async with self._lock.hold(queue.coupon_name, was_busy=True) as lease:
                wait.had_at = time.monotonic()
                queue.waits_for_lock = False
                await self._serve([queue], lease)
            return bool(lease.handed_over)
        except LockBusyError as error:
            # Claims that arrived after this wait began have time left.
            queue.refuse(error, arrived_before=waiting_since)
            return True

    async def _take_turn(self, queue: CouponQueue) -> bool:
        """Try once to take a lock that seems free, and serve the queue. Returns whether it was taken."""
        wait = queue.lock_wait = LockWait(time.monotonic())
        async with self._lock.hold_free([queue.coupon_name]) as lease:
            wait.had_at = time.monotonic()
            if lease.coupon_names:
                await self._serve([queue], lease)
        return bool(lease.coupon_names)

    async def _hand_over(self, combiner: Combiner, queue: CouponQueue) -> HandOver:
        """Hand the next batch of a queue to the holder of its lock.

        Returns:
            `SENT` if its claims have been answered. Otherwise they wait again: nobody else decides them.
        """
        name = queue.coupon_name
        queue.lock_wait = None
        batch = queue.take()
        if not batch.attempts:
            return HandOver.SENT
        journey = combiner.journey(name, batch.attempts)
        if journey is None:
            queue.put_back(batch)
            return HandOver.HELD
        try:
            found = await journey.hand()
            decisions = journey.decisions
            if decisions is None and journey.was_sent:
                if found is HandOver.UNKNOWN:
                    _remember(self._silent, name, time.monotonic() + _SILENT_SECONDS)
                decisions = await self._take_back(journey.batch, combiner)
        except BaseException as error:
            batch.fail(outcome_unknown())
            if isinstance(error, ClaimsvcError):
                return HandOver.SENT
            raise
        if decisions is None:
            self._held_elsewhere.pop(name, None)
            queue.put_back(batch)
            return found
        _remember(self._held_elsewhere, name, time.monotonic() + _HELD_ELSEWHERE_SECONDS)
        batch.answer(_each(decisions, batch.attempts))
        self._note([batch])
        # Most likely those who were answered come again, and can go with those that wait.
        queue.usual_size = max(queue.usual_size, len(queue) + len(batch.attempts))
        if queue.usual_size >= _BUSY_BATCH:
            await _next_arrivals(queue, None)
        return HandOver.SENT

    async def _take_back(self, batch: HandedBatch, combiner: Combiner) -> BatchDecisions | None:
        """Make sure that nobody decides a batch any more. Returns what was decided on it before, or None."""
        if await self._admission.withhold(batch):
            combiner.observer.taken_back(batch.coupon_name, "undecided")
            return None
        combiner.observer.taken_back(batch.coupon_name, "decided")
        return await self._admission.recall(batch)

    async def _look(self, queues: Sequence[CouponQueue]) -> int:
        """Answer the next batches as far as reading tells: that a coupon is sold out needs no lock and no transaction.

        Claims of which reading does not tell wait again.

        Returns:
            How many claims were looked at.
        """
        batches = [(queue, batch) for queue in queues if (batch := queue.take()).attempts]
        attempts = [attempt for _, batch in batches for attempt in batch.attempts]
        if not attempts:
            return 0
        try:
            outcomes = await self._admission.look(attempts)
        except BaseException as error:
            for queue, batch in batches:
                batch.fail(error)
                queue.refuse(error)
            if isinstance(error, ClaimsvcError):
                return 0
            raise
        remaining = iter(outcomes)
        for queue, batch in batches:
            known = [next(remaining) for _ in batch.attempts]
            if None in known:
                self._sold_out.discard(queue.coupon_name)
            queue.answer_known(batch, known)
        return len(attempts)

    async def _serve(self, queues: Sequence[CouponQueue], lease: Lease, *, in_round: bool = False) -> None:
        if queues:
            names = [queue.coupon_name for queue in queues]
            with self._combiner.desk(names) if self._combiner is not None else nullcontext() as desk:
                await self._admit_batches(queues, lease, desk, in_round=in_round)

    async def _admit_batches(
        self, queues: Sequence[CouponQueue], lease: Lease, desk: Desk | None, *, in_round: bool
    ) -> None:
        """Admit batch after batch until no claims wait, or until the time slice ends and another instance waits.

        The check for waiting instances runs while a batch is being decided, so that claims do not wait for it.

        Args:
            in_round: other coupons wait while this takes one of a few rounds, so it ends with the slice if they do.
        """
        started = time.monotonic()
        slice_ends = started + self._slice_seconds
        wanted: asyncio.Task[bool] | None = None
        was_late = False
        admit = partial(self._admit, desk, lease)
        try:
            while True:
                batches = await decide_next(queues, admit)
                if not batches and (not desk or not await self._admit_others(desk, lease)):
                    if desk is None or not await _more_come(queues, desk):
                        return
                    continue
                self._note(batches)
                now = time.monotonic()
                if batches and len(queues) == 1 and batches[0].is_sold_out:
                    return
                if in_round and now >= started + self._slice_seconds and self._batcher.is_crowded:
                    return
                if wanted is None and now >= slice_ends - self._slice_seconds / 2:
                    wanted = asyncio.create_task(lease.is_wanted())
                if now >= slice_ends and wanted is not None:
                    if lease.seconds_left() < _SLICES_WHILE_ALONE * self._slice_seconds or await wanted:
                        return
                    wanted = None
                    slice_ends = time.monotonic() + _SLICES_WHILE_ALONE * self._slice_seconds
                is_over = len(queues) == 1 and now >= started + _DUTY_SECONDS
                # Claims that a slow database has kept waiting here would be refused in line: they come first, once.
                if is_over and not was_late and self._is_late(queues[0]):
                    was_late = True
                elif is_over and desk is not None and (successor := desk.successor()):
                    lease.hand_to(successor)
                    return
                size = len(batches[0].attempts) if batches else 0
                if len(queues) == 1 and size + (desk.last if desk is not None else 0) >= _BUSY_BATCH:
                    await _next_arrivals(queues[0], desk)
        finally:
            if wanted is not None:
                await asyncio.wait([wanted])

    async def _admit(self, desk: Desk | None, lease: Lease, attempts: Sequence[Attempt]) -> Sequence[Decision]:
        """Decide attempts, and the batches that others have handed over."""
        if desk is None or not self._may_decide_for_others(desk, lease):
            return await self._admission.admit(attempts)
        return await desk.admit(self._admission, attempts)

    async def _admit_others(self, desk: Desk, lease: Lease) -> bool:
        """Decide only what others have handed over. Returns False if nothing was decided."""
        if not self._may_decide_for_others(desk, lease):
            return False
        try:
            await desk.admit(self._admission, ())
        except ClaimsvcError:
            return False
        return True

    @staticmethod
    def _may_decide_for_others(desk: Desk, lease: Lease) -> bool:
        """Whether something lies on the desk, and the lock is still held; otherwise others wait for nothing."""
        if desk and lease.seconds_left() <= 0:
            desk.decline()
        desk.last = desk.claims
        return bool(desk)

    def _note(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if batch.is_sold_out:
                if len(self._sold_out) >= _REMEMBERED:
                    self._sold_out.clear()
                self._sold_out.add(batch.coupon_name)


def _each(decisions: BatchDecisions, attempts: Sequence[Attempt]) -> Sequence[Decision]:
    """Return the decision on each attempt of a batch."""
    if not isinstance(decisions, AllClaimed):
        return decisions
    at = decisions.claimed_at
    return [Claimed(Claim(each.claim_id, each.coupon_name, each.user_id, ClaimState.ACTIVE, at)) for each in attempts]


def _remember(until: dict[str, float], coupon_name: str, time_: float) -> None:
    if len(until) >= _REMEMBERED:
        until.clear()
    until[coupon_name] = time_


async def _more_come(queues: Sequence[CouponQueue], desk: Desk) -> bool:
    """Keep a lock without claims for a moment, while others hand over claims: taking it again costs much more.

    Returns:
        Whether there are claims.
    """
    for _ in range(_KEPT_TURNS if desk.was_used else 0):
        await asyncio.sleep(_KEPT_TURN_SECONDS)
        if desk or any(queues):
            return True
    return False


async def _next_arrivals(queue: CouponQueue, desk: Desk | None) -> None:
    """Wait briefly until a queue, and the desk, have most of the usual number of claims.

    A few large batches cost less than many small ones, and taking the lock again costs as much as several claims.

    Args:
        queue: of the coupon.
        desk: where others' claims arrive.
    """
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None]

    def are_enough() -> bool:
        return 4 * len(queue) >= 3 * queue.usual_size and (desk is None or 4 * desk.claims >= 3 * desk.usual)

    def look() -> None:
        if not turn.done() and are_enough():
            turn.set_result(None)

    def end() -> None:
        if not turn.done():
            turn.set_result(None)

    for _ in range(_LINGER_TURNS):
        if are_enough():
            return  # the others can arrive while these are being decided
        # Turns are counted, because in a busy process one turn of the event loop can outlast any time limit.
        turn = loop.create_future()
        timer = loop.call_later(_LINGER_TURN_SECONDS, end)
        queue.on_arrival = look
        if desk is not None:
            desk.on_arrival = look
        try:
            await turn
        finally:
            timer.cancel()
            queue.on_arrival = None
            if desk is not None:
                desk.on_arrival = None
