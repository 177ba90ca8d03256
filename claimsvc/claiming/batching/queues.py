"""Claims that wait for the same coupon: in arrival order, taken batch by batch, each answered."""

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
from claimsvc.domain import Attempt, ClaimOptions
from claimsvc.errors import ClaimsvcError
from claimsvc.ports import BatchObserver, Decision, LockWait, PendingOutcome, Stages


class _Waiting:
    """A claim without an answer yet. Its id (UUIDv7) is made on arrival, so that ids are in arrival order."""

    __slots__ = ("answer", "arrived_at", "attempt")

    def __init__(self, coupon_name: str, user_id: str, options: ClaimOptions | None, answer: PendingOutcome) -> None:
        self.attempt = Attempt(str(uuid7()), coupon_name, user_id, options)
        self.answer = answer
        self.arrived_at = time.monotonic()


class CouponQueue:
    """The waiting claims of one coupon, oldest first. A leader takes them batch by batch.

    `lock_wait` is for its leader to set, where the queue is led under a lock.
    """

    def __init__(self, coupon_name: str, batch_size: int, room: "WaitingRoom", observer: BatchObserver) -> None:
        self.coupon_name = coupon_name
        self.waits_for_lock = False
        self.lock_wait: LockWait | None = None
        self._batch_size = batch_size
        self._room = room
        self._observer = observer
        self._waiting: deque[_Waiting] = deque()
        self._taken: Batch | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def answers(self) -> Iterator[PendingOutcome]:
        """Those that are waited for."""
        return (waiting.answer for waiting in self._waiting)

    def join(self, user_id: str, options: ClaimOptions | None, answer: PendingOutcome) -> None:
        self._waiting.append(_Waiting(self.coupon_name, user_id, options, answer))
        self._room.count += 1

    def take(self) -> "Batch":
        """The next claims in arrival order, at most a batch of them. Who has hung up is passed over."""
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < self._batch_size:
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                self._room.count -= 1
            else:
                taken.append(waiting)
        if taken:
            self._observer.batched(len(taken))
        self._taken = Batch(self.coupon_name, taken, self._room, Stages(self.lock_wait, time.monotonic()))
        return self._taken

    def refuse(self, error: BaseException, *, arrived_before: float = math.inf) -> None:
        """Answer those who arrived before that moment (monotonic seconds) with `error`."""
        stages = Stages(self.lock_wait)
        while self._waiting and self._waiting[0].arrived_at < arrived_before:
            self._room.count -= 1
            _fail(self._waiting.popleft(), error, stages)

    def leave_undecided(self, error: BaseException, *, arrived_before: float) -> None:
        """The same for those who are being decided. Their batch goes on: only they wait for it no longer."""
        if self._taken is not None:
            self._taken.leave(error, arrived_before)


class Batch:
    """Claims of one coupon that are decided together. Every one of them gets an answer."""

    def __init__(self, coupon_name: str, claims: Sequence[_Waiting], room: "WaitingRoom", stages: Stages) -> None:
        self.coupon_name = coupon_name
        self.room = room
        self.attempts = [waiting.attempt for waiting in claims]
        self._claims = claims
        self._stages = stages

    def answers(self) -> Iterator[PendingOutcome]:
        """Those that this batch will give."""
        return (waiting.answer for waiting in self._claims)

    def answer(self, decisions: Sequence[Decision]) -> None:
        self.room.count -= len(self._claims)
        stages = self._stages
        stages.decided_at = time.monotonic()
        for waiting, decision in zip(self._claims, decisions, strict=True):
            if isinstance(decision, Exception):
                _fail(waiting, decision, stages)
            elif not waiting.answer.done():
                waiting.answer.stages = stages
                waiting.answer.set_result(decision)

    def fail(self, error: BaseException) -> None:
        self.room.count -= len(self._claims)
        self.leave(error)

    def leave(self, error: BaseException, arrived_before: float = math.inf) -> None:
        """Answer those who arrived before that moment with `error`, whatever becomes of the batch."""
        for waiting in self._claims:
            if waiting.arrived_at >= arrived_before:
                break
            _fail(waiting, error, self._stages)


def _fail(waiting: _Waiting, error: BaseException, stages: Stages) -> None:
    if not waiting.answer.done():
        waiting.answer.stages = stages
        # Our task was ended from outside. To the claim's caller that is no cancellation: it did not ask for one.
        waiting.answer.set_exception(stopping() if isinstance(error, asyncio.CancelledError) else error)


class Watch(Protocol):
    """Who follows the work on claims from outside, in the task that does it."""

    def leading(self, queues: Sequence[CouponQueue]) -> AbstractContextManager[object]:
        """Entered while these are led."""
        ...

    def deciding(self, batches: Sequence[Batch]) -> AbstractContextManager[object]:
        """Entered while these are decided together, before their claims are answered."""
        ...


class WaitingRoom:
    """How many claims wait in this process, under every strategy together, and how many may; who watches, if any."""

    def __init__(self, limit: int, observer: BatchObserver, watch: Watch | None = None) -> None:
        self.limit = limit
        self.count = 0
        self.watch = watch
        self._observer = observer

    def observe(self) -> None:
        self._observer.claims_waiting(self.count)


Admit = Callable[[Sequence[Attempt]], Awaitable[Sequence[Decision]]]


async def decide_next(queues: Sequence[CouponQueue], admit: Admit) -> list[Batch]:
    """Have the next batch of each queue decided, all together, and every claim answered.

    Returns the batches; none, if nobody waits. Where no decision could be had, whoever waits in the queues at that
    moment gets the error too, because what keeps one claim from PostgreSQL keeps the next; and none are returned. Who
    comes later starts afresh.
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
