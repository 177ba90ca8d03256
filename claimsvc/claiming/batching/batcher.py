"""The tasks in which a strategy leads the queues of coupons.

A claim joins its coupon's queue. A round hands all queues without a leader to the strategy, which takes their locks
and decides them batch by batch.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from claimsvc.claiming.batching.queues import CouponQueue, WaitingRoom, Watch
from claimsvc.claiming.batching.refusals import full, lock_busy, outcome_unknown, overloaded, stopping
from claimsvc.domain import ClaimOptions
from claimsvc.errors import ClaimsvcError
from claimsvc.ports import BatchObserver, PendingOutcome

_log = structlog.get_logger("claimsvc.batching")

_Result = TypeVar("_Result")

# Interval between checks for overdue claims: the precision of their deadlines.
_OVERDUE_CHECK_SECONDS = 0.1
# The lock is tried once more at the deadline. Claims wait this much longer for that attempt.
_LAST_ATTEMPT_SECONDS = 0.1
# A round with so many queues shows that many coupons are claimed from. The next one then gets a moment to fill: whoever
# was answered comes again, and a round costs as much as many claims. The moment is half as long as the last round,
# within bounds.
BUSY_ROUND = 8
_LINGER_SECONDS = 0.002
_LONGEST_LINGER_SECONDS = 0.01
# A busy round is waited for, unless so many queues are ready beside it, or it takes longer than this.
_LARGE_ROUND = 64
_LINGER_BESIDE_SECONDS = 0.02
# How much of the usual size is left with each round that is smaller, and with each that has less than half of it.
_FORGETTING = 0.95
_FORGETTING_FAST = 0.8


class Leader(Protocol):
    """Decides queues that have claims waiting.

    Both methods run in a task that a caller's cancellation does not reach. If they raise, the claims still in the
    queues fail with that error.
    """

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        """Decide the queues that need not wait, and return those that must wait for their turn."""
        ...

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        """Wait for this queue's turn, then decide its claims, or refuse them."""
        ...


class _WatchedLeader:
    """A `Leader` whose work is reported to a `Watch`."""

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
        concurrent_rounds: most rounds at the same time, not counting tasks that wait for a queue's turn. Queues that
            become ready meanwhile share the next round, so a higher limit means more rounds with fewer queues each.
            While many coupons are claimed from, a second round begins only if there are enough queues for it, or if
            the first takes long.
        lock_timeout_seconds: longest wait of a claim while its queue waits for the lock.
        queue_timeout_seconds: longest wait of a claim while its queue waits for anything else.
        claim_timeout_seconds: longest time from arrival to outcome, including the decision.
    """

    batch_size: int
    lock_timeout_seconds: float
    queue_timeout_seconds: float
    claim_timeout_seconds: float
    concurrent_rounds: int = 2


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
        self._usual_round = 0.0
        self._last_round_seconds = 0.0
        self._lingering: asyncio.TimerHandle | None = None
        self._overdue_check_due = False

    @property
    def is_crowded(self) -> bool:
        """Whether queues wait for a round, and none is free for them."""
        return bool(self._ready) and not self._free_rounds

    def submit(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """Queue a claim and return its pending outcome; see `ports.Claims`.

        Cancelling the outcome drops the claim if no batch has taken it yet; otherwise the claim is decided anyway.
        While this process drains, or at its limit of waiting claims, the outcome fails with `UnavailableError`.
        """
        loop = asyncio.get_running_loop()
        answer = PendingOutcome(loop=loop)
        if self._draining:
            answer.set_exception(stopping())
            return answer
        if self._room.count >= self._room.limit:
            answer.set_exception(full())
            return answer
        queue = self._queues.get(coupon_name)
        if queue is None:
            queue = CouponQueue(coupon_name, self._limits.batch_size, self._room, self._observer)
            self._queues[coupon_name] = queue
            self._ready.append(queue)
            self._plan_round(loop)
            if self._lingering is not None and self._are_enough_ready():
                self._stop_lingering()
                loop.call_soon(self._start_round)
        queue.join(user_id, options, answer)
        if not self._overdue_check_due:
            self._overdue_check_due = True
            loop.call_later(_OVERDUE_CHECK_SECONDS, self._refuse_overdue)
        return answer

    async def drain(self) -> None:
        """Refuse new claims, and wait until every accepted claim has an outcome."""
        self._draining = True
        while self._ready or self._tasks:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)

    def _plan_round(self, loop: asyncio.AbstractEventLoop) -> None:
        # Deferred, so that claims which arrive in the same turn of the event loop share the round.
        if not self._round_due and self._free_rounds and self._ready:
            self._round_due = True
            loop.call_soon(self._start_round_or_linger)

    def _start_round_or_linger(self) -> None:
        if self._are_enough_ready():
            self._start_round()
            return
        seconds = _LINGER_BESIDE_SECONDS
        if self._is_no_round_under_way():
            seconds = max(_LINGER_SECONDS, min(self._last_round_seconds / 2, _LONGEST_LINGER_SECONDS))
        self._lingering = asyncio.get_running_loop().call_later(seconds, self._start_round)

    def _are_enough_ready(self) -> bool:
        """Whether a round is worth it now. Sizes are compared with those of late, so nothing waits while few come."""
        if self._usual_round < BUSY_ROUND or self._draining:
            return True
        if self._is_no_round_under_way():
            return 10 * len(self._ready) >= 9 * self._usual_round
        return len(self._ready) >= _LARGE_ROUND

    def _is_no_round_under_way(self) -> bool:
        return self._free_rounds == self._limits.concurrent_rounds

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _start_round(self) -> None:
        self._round_due = False
        self._lingering = None
        if self._free_rounds and self._ready:
            queues, self._ready = self._ready, []
            left = _FORGETTING if 2 * len(queues) >= self._usual_round else _FORGETTING_FAST
            self._usual_round = max(len(queues), left * self._usual_round)
            self._free_rounds -= 1
            self._spawn(self._leader.lead(queues), partial(self._round_ended, queues, time.monotonic()))

    def _round_ended(
        self, queues: Sequence[CouponQueue], started: float, round_: "asyncio.Task[Sequence[CouponQueue]]"
    ) -> None:
        self._last_round_seconds = time.monotonic() - started
        self._free_rounds += 1
        must_wait = () if self._abandon_if_failed(queues, round_) else round_.result()
        for queue in queues:
            if queue in must_wait:
                self._spawn(self._leader.wait_and_lead(queue), partial(self._turn_ended, queue))
            else:
                self._give_up_lead(queue)
        if self._lingering is not None:
            # The round that was waited for.
            self._stop_lingering()
            self._round_due = False
        self._plan_round(asyncio.get_running_loop())

    def _turn_ended(self, queue: CouponQueue, turn: "asyncio.Task[None]") -> None:
        self._abandon_if_failed([queue], turn)
        self._give_up_lead(queue)

    def _give_up_lead(self, queue: CouponQueue) -> None:
        """Remove the queue if it is empty; otherwise make it ready for the next round."""
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
        # The claims have failed with the error. An unexpected kind of error is a defect, so it is logged too.
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
                    lock_busy(), arrived_before=now - self._limits.lock_timeout_seconds - _LAST_ATTEMPT_SECONDS
                )
            else:
                queue.refuse(overloaded(), arrived_before=now - self._limits.queue_timeout_seconds)
            queue.time_out_undecided(outcome_unknown(), arrived_before=now - self._limits.claim_timeout_seconds)
        if self._queues:
            self._overdue_check_due = True
            asyncio.get_running_loop().call_later(_OVERDUE_CHECK_SECONDS, self._refuse_overdue)

    def _spawn(self, work: Coroutine[Any, Any, _Result], ended: "Callable[[asyncio.Task[_Result]], None]") -> None:
        """Run `work` in its own task. `ended` is called even if the task is cancelled before its first step."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)
