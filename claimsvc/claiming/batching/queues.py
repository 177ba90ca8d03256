"""The queue of claims that wait for one coupon, and the batches taken from it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Protocol

from uuid_utils import uuid7

from claimsvc.claiming.batching.refusals import stopping
from claimsvc.domain import Attempt, ClaimOptions, ClaimOutcome, SoldOut
from claimsvc.errors import ClaimsvcError
from claimsvc.ports import BatchObserver, Decision, LockWait, PendingOutcome, Stages

# How much of the usual size is left with each batch that is smaller.
_FORGETTING = 0.95


class _Waiting:
    """A claim without an outcome. Its id (UUIDv7) is generated on arrival, so that ids sort by arrival."""

    __slots__ = ("answer", "arrived_at", "attempt")

    def __init__(self, coupon_name: str, user_id: str, options: ClaimOptions | None, answer: PendingOutcome) -> None:
        self.attempt = Attempt(str(uuid7()), coupon_name, user_id, options)
        self.answer = answer
        self.arrived_at = time.monotonic()


class CouponQueue:
    """The waiting claims of one coupon, oldest first. A leader takes them batch by batch.

    A leader that takes a lock for the queue sets `waits_for_lock` and `lock_wait`.

    Attributes:
        usual_size: that of the largest of the latest batches, or somewhat less.
        misses: in how many rounds in a row its lock was busy.
        on_arrival: called after each claim that joins, if set.
    """

    def __init__(self, coupon_name: str, batch_size: int, room: "WaitingRoom", observer: BatchObserver) -> None:
        self.coupon_name = coupon_name
        self.waits_for_lock = False
        self.lock_wait: LockWait | None = None
        self.usual_size = 0.0
        self.misses = 0
        self.on_arrival: Callable[[], None] | None = None
        self._batch_size = batch_size
        self._room = room
        self._observer = observer
        self._waiting: deque[_Waiting] = deque()
        self._taken: Batch | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def longest_wait(self) -> float:
        """Return for how long the first of the waiting claims has waited (seconds); 0 if none waits."""
        return time.monotonic() - self._waiting[0].arrived_at if self._waiting else 0.0

    def answers(self) -> Iterator[PendingOutcome]:
        """The pending outcomes of the waiting claims."""
        return (waiting.answer for waiting in self._waiting)

    def join(self, user_id: str, options: ClaimOptions | None, answer: PendingOutcome) -> None:
        self._waiting.append(_Waiting(self.coupon_name, user_id, options, answer))
        self._room.count += 1
        if self.on_arrival is not None:
            self.on_arrival()

    def take(self) -> "Batch":
        """Take the next batch in arrival order. Claims whose caller has gone are dropped."""
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < self._batch_size:
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                self._room.count -= 1
            else:
                taken.append(waiting)
        if taken:
            self.misses = 0
            self._observer.batched(len(taken))
        self.usual_size = max(len(taken), _FORGETTING * self.usual_size)
        self._taken = Batch(self.coupon_name, taken, self._room, Stages(self.lock_wait, time.monotonic()))
        return self._taken

    def put_back(self, batch: "Batch") -> None:
        """Put the claims of a batch that nobody has decided, and nobody will, back to the front."""
        self._waiting.extendleft(reversed(batch.claims))
        self._taken = None

    def answer_known(self, batch: "Batch", outcomes: "Sequence[ClaimOutcome | None]") -> None:
        """Answer those claims of a batch whose outcome is known, and put the others back to the front."""
        known = [each for each, outcome in zip(batch.claims, outcomes, strict=True) if outcome is not None]
        unknown = [each for each, outcome in zip(batch.claims, outcomes, strict=True) if outcome is None]
        batch.claims = known
        batch.answer([outcome for outcome in outcomes if outcome is not None])
        self._waiting.extendleft(reversed(unknown))
        self._taken = None

    def refuse(self, error: BaseException, *, arrived_before: float = math.inf) -> None:
        """Fail the waiting claims that arrived before `arrived_before` (monotonic seconds) with `error`."""
        stages = Stages(self.lock_wait)
        while self._waiting and self._waiting[0].arrived_at < arrived_before:
            self._room.count -= 1
            _fail(self._waiting.popleft(), error, stages)

    def time_out_undecided(self, error: BaseException, *, arrived_before: float) -> None:
        """Fail the claims of the current batch that arrived before `arrived_before`; the batch itself continues."""
        if self._taken is not None:
            self._taken.time_out(error, arrived_before)


class Batch:
    """Claims of one coupon that are decided together. Each of them gets an outcome or an error.

    Attributes:
        is_sold_out: whether nothing was left for the last of them.
    """

    def __init__(
        self,
        coupon_name: str,
        claims: Sequence[_Waiting],
        room: "WaitingRoom",
        stages: Stages,
    ) -> None:
        self.coupon_name = coupon_name
        self.room = room
        self.attempts = [waiting.attempt for waiting in claims]
        self.claims = claims
        self.is_sold_out = False
        self._stages = stages

    def answers(self) -> Iterator[PendingOutcome]:
        """The pending outcomes of the claims in this batch."""
        return (waiting.answer for waiting in self.claims)

    def answer(self, decisions: Sequence[Decision]) -> None:
        self.room.count -= len(self.claims)
        stages = self._stages
        stages.decided_at = time.monotonic()
        self.is_sold_out = bool(decisions) and type(decisions[-1]) is SoldOut
        for waiting, decision in zip(self.claims, decisions, strict=True):
            if isinstance(decision, Exception):
                _fail(waiting, decision, stages)
            elif not waiting.answer.done():
                waiting.answer.stages = stages
                waiting.answer.set_result(decision)

    def fail(self, error: BaseException) -> None:
        self.room.count -= len(self.claims)
        self.time_out(error)

    def time_out(self, error: BaseException, arrived_before: float = math.inf) -> None:
        """Fail the claims that arrived before `arrived_before` (monotonic seconds), whatever the batch's result."""
        for waiting in self.claims:
            if waiting.arrived_at >= arrived_before:
                break
            _fail(waiting, error, self._stages)


def _fail(waiting: _Waiting, error: BaseException, stages: Stages) -> None:
    if not waiting.answer.done():
        waiting.answer.stages = stages
        # The leading task was cancelled. The claim's caller did not cancel anything, so it must not see CancelledError.
        waiting.answer.set_exception(stopping() if isinstance(error, asyncio.CancelledError) else error)


class Watch(Protocol):
    """Observes the work on claims (for tracing), from within the task that does it."""

    def leading(self, queues: Sequence[CouponQueue]) -> AbstractContextManager[object]:
        """Return a context that is active while these queues are led."""
        ...

    def deciding(self, batches: Sequence[Batch]) -> AbstractContextManager[object]:
        """Return a context that is active while these batches are decided, before their claims get outcomes."""
        ...


class WaitingRoom:
    """The number of claims that wait in this process, across all strategies, and its limit.

    Args:
        limit: most claims that may wait.
        watch: observes the work on them, if set.
    """

    def __init__(self, limit: int, observer: BatchObserver, watch: Watch | None = None) -> None:
        self.limit = limit
        self.count = 0
        self.watch = watch
        self._observer = observer

    def observe(self) -> None:
        self._observer.claims_waiting(self.count)


Admit = Callable[[Sequence[Attempt]], Awaitable[Sequence[Decision]]]


async def decide_next(queues: Sequence[CouponQueue], admit: Admit) -> list[Batch]:
    """Decide the next batch of each queue, all in one call of `admit`, and give every claim its outcome.

    If `admit` fails, the claims in the batches and those that wait in the queues fail with its error: the next claim
    would meet the same outage. Claims that arrive later are tried again.

    Returns:
        The decided batches. Empty if no claims wait, or if `admit` raised a `ClaimsvcError`.

    Raises:
        BaseException: any other error of `admit`.
    """
    batches = [batch for queue in queues if queue and (batch := queue.take()).attempts]
    if not batches:
        return []
    watch = batches[0].room.watch
    try:
        with watch.deciding(batches) if watch is not None else nullcontext():
            decisions = iter(await admit([attempt for batch in batches for attempt in batch.attempts]))
    except BaseException as error:
        for batch in batches:
            batch.fail(error)
        for queue in queues:
            queue.refuse(error)
        if isinstance(error, ClaimsvcError):
            return []
        raise
    for batch in batches:
        batch.answer(list(islice(decisions, len(batch.attempts))))
    return batches
