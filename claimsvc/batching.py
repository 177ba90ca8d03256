"""Claims that wait for the same coupon in this process: taken in arrival order, admitted together, each answered.

A claim joins its coupon's queue. A queue that nobody leads is given, together with all others in that state, to the
strategy that leads it: it takes the locks and has the queues decided, batch by batch.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import structlog
from uuid_utils import uuid7

from claimsvc.errors import ClaimsvcError, LockBusyError, UnavailableError
from claimsvc.ports import Attempt, BatchObserver, ClaimAnswer, Decision, LockWait, Stages

_log = structlog.get_logger("claimsvc.batching")

_Result = TypeVar("_Result")

# How often waiting claims are looked at for being overdue: the precision of their deadlines.
_OVERDUE_CHECK_SECONDS = 0.1
# When patience is over the lock is tried a last time. Its answer is waited for, this long at most.
_LAST_ATTEMPT_SECONDS = 0.1


class _Waiting:
    """A claim without an answer yet. Its id (UUIDv7) is made on arrival, so that ids are in arrival order."""

    __slots__ = ("answer", "arrived_at", "attempt")

    def __init__(self, coupon_name: str, user_id: str, answer: ClaimAnswer) -> None:
        self.attempt = Attempt(str(uuid7()), coupon_name, user_id)
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

    def answers(self) -> Iterator[ClaimAnswer]:
        """Those that are waited for."""
        return (waiting.answer for waiting in self._waiting)

    def join(self, user_id: str, answer: ClaimAnswer) -> None:
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


Admit = Callable[[Sequence[Attempt]], Awaitable[Sequence[Decision]]]


class Batch:
    """Claims of one coupon that are decided together. Every one of them gets an answer."""

    def __init__(self, coupon_name: str, claims: Sequence[_Waiting], room: "WaitingRoom", stages: Stages) -> None:
        self.coupon_name = coupon_name
        self.room = room
        self.attempts = [waiting.attempt for waiting in claims]
        self._claims = claims
        self._stages = stages

    def answers(self) -> Iterator[ClaimAnswer]:
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
    watch = batches[0].room.watch
    try:
        with watch.deciding(batches) if watch is not None else _UNWATCHED:
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


class Watch(Protocol):
    """Who follows the work on claims from outside, in the task that does it."""

    def leading(self, queues: Sequence[CouponQueue]) -> AbstractContextManager[object]:
        """Entered while these are led."""
        ...

    def deciding(self, batches: Sequence[Batch]) -> AbstractContextManager[object]:
        """Entered while these are decided together, before their claims are answered."""
        ...


_UNWATCHED = nullcontext()


class _WatchedLeader:
    """`Leader` that is followed."""

    def __init__(self, leader: Leader, watch: Watch) -> None:
        self._leader = leader
        self._watch = watch

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        with self._watch.leading(queues):
            return await self._leader.lead(queues)

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        with self._watch.leading([queue]):
            await self._leader.wait_and_lead(queue)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The bounds of a batcher.

    Args:
        batch_size: most claims of a coupon in one batch.
        concurrent_rounds: most tasks that lead at the same time, those that wait for their turn aside. Queues that
            become ready meanwhile are led together by the next; more rounds make smaller ones, and so more of them.
        lock_patience_seconds: longest wait of a claim while its queue waits for the lock.
        patience_seconds: longest wait of a claim while its queue waits for anything else.
        claim_timeout_seconds: longest wait of a claim in all, its decision included.
    """

    batch_size: int
    lock_patience_seconds: float
    patience_seconds: float
    claim_timeout_seconds: float
    concurrent_rounds: int = 2


class WaitingRoom:
    """How many claims wait in this process, under every strategy together, and how many may; who watches, if any."""

    def __init__(self, limit: int, observer: BatchObserver, watch: Watch | None = None) -> None:
        self.limit = limit
        self.count = 0
        self.watch = watch
        self._observer = observer

    def observe(self) -> None:
        self._observer.claims_waiting(self.count)


class Batcher:
    """Queues by coupon, and the tasks in which a strategy leads them."""

    def __init__(self, leader: Leader, limits: BatchLimits, room: WaitingRoom, observer: BatchObserver) -> None:
        self._leader = leader if room.watch is None else _WatchedLeader(leader, room.watch)
        self._limits = limits
        self._room = room
        self._free_rounds = limits.concurrent_rounds
        self._observer = observer
        self._queues: dict[str, CouponQueue] = {}
        self._ready: list[CouponQueue] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._round_due = False
        self._overdue_check_due = False

    def submit(self, coupon_name: str, user_id: str) -> ClaimAnswer:
        """The answer to a claim; see `ports.Claims`. A claim whose answer is cancelled is passed over, or decided."""
        loop = asyncio.get_running_loop()
        answer = ClaimAnswer(loop=loop)
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
            self._spawn(self._leader.lead(queues), partial(self._round_ended, queues))

    def _round_ended(self, queues: Sequence[CouponQueue], round_: "asyncio.Task[Sequence[CouponQueue]]") -> None:
        self._free_rounds += 1
        must_wait = () if self._abandon_if_failed(queues, round_) else round_.result()
        for queue in queues:
            if queue in must_wait:
                self._spawn(self._leader.wait_and_lead(queue), partial(self._turn_ended, queue))
            else:
                self._give_up_lead(queue)
        self._plan_round(asyncio.get_running_loop())

    def _turn_ended(self, queue: CouponQueue, turn: "asyncio.Task[None]") -> None:
        self._abandon_if_failed([queue], turn)
        self._give_up_lead(queue)

    def _give_up_lead(self, queue: CouponQueue) -> None:
        """Nobody leads the queue now: forget it if it is empty; else it is ready for the next round."""
        queue.waits_for_lock = False
        if queue:
            self._ready.append(queue)
            self._plan_round(asyncio.get_running_loop())
        else:
            del self._queues[queue.coupon_name]

    def _abandon_if_failed(self, queues: Sequence[CouponQueue], task: "asyncio.Task[Any]") -> bool:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return False
        for queue in queues:
            queue.refuse(error)
        # The claims have had the error for an answer; what is not a known kind of failure is a defect, and logged.
        if not isinstance(error, (ClaimsvcError, asyncio.CancelledError)):
            _log.error("leading a queue failed", exc_info=error)
        return True

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
            queue.leave_undecided(outcome_unknown(), arrived_before=now - self._limits.claim_timeout_seconds)
        if self._queues:
            self._overdue_check_due = True
            asyncio.get_running_loop().call_later(_OVERDUE_CHECK_SECONDS, self._refuse_overdue)

    def _spawn(self, work: Coroutine[Any, Any, _Result], ended: "Callable[[asyncio.Task[_Result]], None]") -> None:
        """Run `work` as a task of ours. `ended` is called with it even if it was cancelled before its first step."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)


def lock_busy() -> LockBusyError:
    return LockBusyError("the coupon's lock was held by others all the while; nothing was decided")


def _full() -> UnavailableError:
    return UnavailableError("as many claims as this instance has room for are waiting", dependency="claimsvc")


def _overloaded() -> UnavailableError:
    return UnavailableError("the claims before this one took too long; nothing was decided", dependency="claimsvc")


def outcome_unknown() -> UnavailableError:
    return UnavailableError(
        "the claim is not decided yet, and may still succeed: the same claim again tells its outcome",
        dependency="claimsvc",
    )


def _stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")
