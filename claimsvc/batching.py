"""Claims that wait for the same coupon in this process: taken in arrival order, admitted together, each answered.

A claim joins its coupon's queue. A queue that nobody leads is given, together with all others in that state, to the
strategy that leads it: it takes the locks and has the queues decided, batch by batch.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import structlog
from uuid_utils import uuid7

from claimsvc.domain import Outcome
from claimsvc.errors import ClaimsvcError, LockBusyError, UnavailableError
from claimsvc.ports import Attempt, BatchObserver, Decision

_log = structlog.get_logger("claimsvc.batching")

# How often waiting claims are looked at for being overdue: the precision of their deadlines.
_OVERDUE_CHECK_SECONDS = 0.1
# When patience is over the lock is tried a last time. Its answer is waited for, this long at most.
_LAST_ATTEMPT_SECONDS = 0.1


class _Waiting:
    """A claim without an answer yet. Its id (UUIDv7) is made on arrival, so that ids are in arrival order."""

    __slots__ = ("answer", "arrived_at", "attempt")

    def __init__(self, coupon_name: str, user_id: str, answer: "asyncio.Future[Outcome]") -> None:
        self.attempt = Attempt(str(uuid7()), coupon_name, user_id)
        self.answer = answer
        self.arrived_at = time.monotonic()


class CouponQueue:
    """The waiting claims of one coupon, oldest first. A leader takes them batch by batch."""

    def __init__(self, coupon_name: str, batch_size: int, room: "WaitingRoom", observer: BatchObserver) -> None:
        self.coupon_name = coupon_name
        self.waits_for_lock = False
        self._batch_size = batch_size
        self._room = room
        self._observer = observer
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, user_id: str, answer: "asyncio.Future[Outcome]") -> None:
        self._waiting.append(_Waiting(self.coupon_name, user_id, answer))
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
        return Batch(self.coupon_name, taken, self._room)

    def refuse(self, error: BaseException, *, arrived_before: float = math.inf) -> None:
        """Answer those who arrived before that moment (monotonic seconds) with `error`."""
        while self._waiting and self._waiting[0].arrived_at < arrived_before:
            self._room.count -= 1
            _fail(self._waiting.popleft(), error)


Admit = Callable[[Sequence[Attempt]], Awaitable[Sequence[Decision]]]


class Batch:
    """Claims of one coupon that are decided together. Every one of them gets an answer."""

    def __init__(self, coupon_name: str, claims: Sequence[_Waiting], room: "WaitingRoom") -> None:
        self.coupon_name = coupon_name
        self._room = room
        self.attempts = [waiting.attempt for waiting in claims]
        self._claims = claims

    def answer(self, decisions: Sequence[Decision]) -> None:
        self._room.count -= len(self._claims)
        for waiting, decision in zip(self._claims, decisions, strict=True):
            if isinstance(decision, Exception):
                _fail(waiting, decision)
            elif not waiting.answer.done():
                waiting.answer.set_result(decision)

    def fail(self, error: BaseException) -> None:
        self._room.count -= len(self._claims)
        for waiting in self._claims:
            _fail(waiting, error)


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.answer.done():
        # Our task was ended from outside. To the claim's caller that is no cancellation: it did not ask for one.
        waiting.answer.set_exception(_stopping() if isinstance(error, asyncio.CancelledError) else error)


async def decide_next(queues: Sequence[CouponQueue], admit: Admit) -> list[Batch]:
    """Have the next batch of each queue decided, all together, and every claim answered.

    Returns the batches; none, if nobody waits. Where no decision could be had, whoever waits in the queues at that
    moment gets the error too, because what keeps one claim from PostgreSQL keeps the next; and none are returned. Who
    comes later starts afresh.
    """
    batches = [batch for queue in queues if queue and (batch := queue.take()).attempts]
    if not batches:
        return []
    try:
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


class Leader(Protocol):
    """What a strategy does with queues that have claims waiting.

    It runs in a task that no caller's cancellation reaches. Claims it leaves behind by raising get its error.
    """

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        """Have the queues decided whose turn it is at once; return those that must wait for their turn."""
        ...

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        """Wait for this queue's turn, then have it decided; or refuse its claims."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The bounds of a batcher.

    Args:
        batch_size: most claims of a coupon in one batch.
        concurrent_rounds: most tasks that lead at the same time, those that wait for their turn aside. Queues that
            become ready meanwhile are led together by the next; more rounds make smaller ones, and so more of them.
        lock_patience_seconds: longest wait of a claim while its queue waits for the lock.
        patience_seconds: longest wait of a claim while its queue waits for anything else.
    """

    batch_size: int
    lock_patience_seconds: float
    patience_seconds: float
    concurrent_rounds: int = 2


class WaitingRoom:
    """How many claims wait in this process, under every strategy together, and how many may."""

    def __init__(self, limit: int, observer: BatchObserver) -> None:
        self.limit = limit
        self.count = 0
        self._observer = observer

    def observe(self) -> None:
        self._observer.claims_waiting(self.count)


class Batcher:
    """Queues by coupon, and the tasks in which a strategy leads them."""

    def __init__(self, leader: Leader, limits: BatchLimits, room: WaitingRoom, observer: BatchObserver) -> None:
        self._leader = leader
        self._limits = limits
        self._room = room
        self._free_rounds = limits.concurrent_rounds
        self._observer = observer
        self._queues: dict[str, CouponQueue] = {}
        self._ready: list[CouponQueue] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._round_due = False
        self._overdue_check_due = False

    def submit(self, coupon_name: str, user_id: str) -> "asyncio.Future[Outcome]":
        """The answer to a claim; see `ports.Claims`. A claim whose answer is cancelled is passed over, or decided."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        if self._draining:
            answer.set_exception(_stopping())
            return answer
        if self._room.count >= self._room.limit:
            answer.set_exception(_full())
            return answer
        queue = self._queues.get(coupon_name)
        if queue is None:
            queue = CouponQueue(coupon_name, self._limits.batch_size, self._room, self._observer)
            self._queues[coupon_name] = queue
            self._ready.append(queue)
            self._plan_round(loop)
        queue.join(user_id, answer)
        if not self._overdue_check_due:
            self._overdue_check_due = True
            loop.call_later(_OVERDUE_CHECK_SECONDS, self._refuse_overdue)
        return answer

    async def drain(self) -> None:
        """Refuse new claims, and wait until every one that was accepted has its answer."""
        self._draining = True
        while self._ready or self._tasks:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)

    def _plan_round(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not at once: claims that arrive in this same turn of the event loop can then share the round.
        if not self._round_due and self._free_rounds and self._ready:
            self._round_due = True
            loop.call_soon(self._start_round)

    def _start_round(self) -> None:
        self._round_due = False
        if self._free_rounds and self._ready:
            queues, self._ready = self._ready, []
            self._free_rounds -= 1
            self._spawn(self._round(queues))

    async def _round(self, queues: Sequence[CouponQueue]) -> None:
        must_wait: Sequence[CouponQueue] = ()
        try:
            must_wait = await self._leader.lead(queues)
        except BaseException as error:
            self._abandon(queues, error)
            raise
        finally:
            self._free_rounds += 1
            for queue in queues:
                if queue not in must_wait:
                    self._give_up_lead(queue)
            for queue in must_wait:
                self._spawn(self._wait_and_lead(queue))
            self._plan_round(asyncio.get_running_loop())

    async def _wait_and_lead(self, queue: CouponQueue) -> None:
        try:
            await self._leader.wait_and_lead(queue)
        except BaseException as error:
            self._abandon([queue], error)
            raise
        finally:
            self._give_up_lead(queue)

    def _give_up_lead(self, queue: CouponQueue) -> None:
        """Nobody leads the queue now: forget it if it is empty; else it is ready for the next round."""
        queue.waits_for_lock = False
        if queue:
            self._ready.append(queue)
            self._plan_round(asyncio.get_running_loop())
        else:
            del self._queues[queue.coupon_name]

    def _abandon(self, queues: Sequence[CouponQueue], error: BaseException) -> None:
        for queue in queues:
            queue.refuse(error)

    def _refuse_overdue(self) -> None:
        self._overdue_check_due = False
        self._room.observe()
        now = time.monotonic()
        for queue in self._queues.values():
            if queue.waits_for_lock:
                queue.refuse(
                    lock_busy(), arrived_before=now - self._limits.lock_patience_seconds - _LAST_ATTEMPT_SECONDS
                )
            else:
                queue.refuse(_overloaded(), arrived_before=now - self._limits.patience_seconds)
        if self._queues:
            self._overdue_check_due = True
            asyncio.get_running_loop().call_later(_OVERDUE_CHECK_SECONDS, self._refuse_overdue)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        # Its claims have had the error for an answer; what is not a known kind of failure is a defect, and logged.
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ClaimsvcError):
            _log.error("leading a queue failed", exc_info=error)


def lock_busy() -> LockBusyError:
    return LockBusyError("the coupon's lock was held by others all the while; nothing was decided")


def _full() -> UnavailableError:
    return UnavailableError("as many claims as this instance has room for are waiting", dependency="claimsvc")


def _overloaded() -> UnavailableError:
    return UnavailableError("the claims before this one took too long; nothing was decided", dependency="claimsvc")


def _stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")
