"""`ports.Lock`: attempts, waits and timeouts. This is the only file that imports tenacity.

An acquisition runs in its own task: cancelling the caller undoes it, and leaves no keys behind. A failed release does
not raise into the caller's code: it is logged and counted. A lease's expiry is computed from a clock reading before
the first master was asked.
"""

import asyncio
import copy
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_fixed

from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.ports import LockObserver
from claimsvc.redis.lock.acquisition import Acquisition
from claimsvc.redis.lock.identity import instance_name
from claimsvc.redis.lock.multi_lock import MultiLockAcquisition
from claimsvc.redis.lock.post import MasterPost, open_post
from claimsvc.redis.lock.pottery_lock import PotteryAcquisition
from claimsvc.redis.lock.wait_queue import HandOver, Wake, open_hand_over
from claimsvc.redis.masters import Master

_log = structlog.get_logger("claimsvc.lock")

# Redlock's allowance for clock drift: 1 % of the TTL plus 2 ms, as in pottery
# (https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/).
_CLOCK_DRIFT_FACTOR = 0.01
_CLOCK_DRIFT_SECONDS = 0.002

# Longest random delay before another attempt at a lock that seems free, so that a split vote is not repeated.
_SPREAD_SECONDS = 0.01


class RedlockLease:
    """`ports.Lease`.

    Args:
        acquisition: the attempt that took the locks; it releases them.
        coupon_names: names of the locks that were taken.
        hand_over: knows which locks other instances wait for.
        expires_at: when the locks may have expired (monotonic seconds).
    """

    def __init__(
        self, acquisition: Acquisition, coupon_names: Sequence[str], hand_over: HandOver, expires_at: float
    ) -> None:
        self.acquisition = acquisition
        self.coupon_names = coupon_names
        self.acquired_at = time.monotonic()
        self._hand_over = hand_over
        self._expires_at = expires_at
        self.handed_over: Sequence[str] = ()

    def seconds_left(self) -> float:
        return self._expires_at - time.monotonic()

    def hand_to(self, instance: str) -> None:
        self.acquisition.successor = instance

    async def is_wanted(self) -> bool:
        # Several locks are always taken as wanted: checking each would cost more than it saves.
        return len(self.coupon_names) != 1 or await self._hand_over.is_wanted(self.coupon_names[0])


class Redlocks:
    """`ports.Lock` on an odd number of independent masters.

    A lock that another instance holds is tried again. A missing majority of masters fails immediately.

    Args:
        masters: clients of the masters, with timeouts and without retries.
        hand_over: the wait queue for busy locks.
        instance: the name of this instance, with which its tokens begin.
        ttl_seconds: when a lock that is not released becomes free.
        retries: attempts after the first. Attempts that follow a hint are not counted.
        retry_wait_seconds: the pause between two attempts.
        observer: receives every attempt, wait and hold.
        post: receives the batches that are handed to this instance while it holds a lock; None if it takes none.
    """

    def __init__(
        self,
        masters: Sequence[Master],
        hand_over: HandOver,
        *,
        instance: str,
        ttl_seconds: float,
        retries: int,
        retry_wait_seconds: float,
        observer: LockObserver,
        post: MasterPost | None = None,
    ) -> None:
        self._masters = tuple(masters)
        self._hand_over = hand_over
        self._instance = instance
        self._post = post
        self._ttl_seconds = ttl_seconds
        self._validity_seconds = ttl_seconds * (1 - _CLOCK_DRIFT_FACTOR) - _CLOCK_DRIFT_SECONDS
        self._retries = retries
        self._retry_wait_seconds = retry_wait_seconds
        self._observer = observer
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def post(self) -> MasterPost | None:
        """Carries messages to the holders of locks, if this instance combines."""
        return self._post

    @asynccontextmanager
    async def hold(self, coupon_name: str, *, was_busy: bool = False) -> AsyncIterator[RedlockLease]:
        lease = await self._wait_for(coupon_name, was_busy=was_busy)
        try:
            yield lease
        finally:
            await self._release_shielded(lease)

    @asynccontextmanager
    async def hold_free(self, coupon_names: Sequence[str]) -> AsyncIterator[RedlockLease]:
        started = time.monotonic()
        lease = await self._attempt(coupon_names)
        if lease.coupon_names:
            self._observer.waited(lease.coupon_names, "acquired", time.monotonic() - started)
        try:
            yield lease
        finally:
            if lease.coupon_names:
                await self._release_shielded(lease)

    def without_metrics(self) -> "Redlocks":
        """Return a copy that reports nothing to the observer, for locks that are not coupons'. Closed with this one."""
        twin = copy.copy(self)
        twin._observer = _NullObserver()
        twin._post = None
        return twin

    async def aclose(self) -> None:
        """Wait until all releases in progress have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _wait_for(self, coupon_name: str, *, was_busy: bool) -> RedlockLease:
        """Make the first attempt (unless `was_busy`), then retry with tenacity."""
        started = time.monotonic()
        attempts_left = self._retries + (not was_busy)
        next_attempt_at = started + self._retry_wait_seconds
        wake = Wake.NONE
        failed_wakes = 0

        async def attempt() -> RedlockLease:
            nonlocal attempts_left, next_attempt_at
            if wake is Wake.NONE or time.monotonic() >= next_attempt_at:
                attempts_left -= 1
                next_attempt_at = time.monotonic() + self._retry_wait_seconds
            return await self._attempt((coupon_name,))

        async def pause(_: float = 0.0) -> None:
            """Wait until the next attempt is due, or until a hint makes an earlier one worthwhile."""
            nonlocal wake, failed_wakes
            if wake is Wake.FREE:
                # The lock was reported free but could not be taken: other instances try too. If that is repeated, the
                # master that was asked has lost the lock or takes no writes, so queue on another one.
                failed_wakes += 1
                await asyncio.sleep(random.uniform(0, _SPREAD_SECONDS))  # noqa: S311
            wake = await self._hand_over.wait(
                coupon_name, next_attempt_at - time.monotonic(), skip=max(0, failed_wakes - 1)
            )
            if wake is Wake.NONE:
                self._observer.retried(coupon_name)

        retrying = AsyncRetrying(
            retry=retry_if_result(lambda lease: not lease.coupon_names),
            stop=lambda _: attempts_left <= 0,
            wait=wait_fixed(self._retry_wait_seconds),
            sleep=pause,
            retry_error_callback=self._give_up,
        )
        result = "cancelled"
        self._observer.lock_waiters(+1)
        try:
            if was_busy:
                await pause()
            lease: RedlockLease = await retrying(attempt)
            result = "acquired"
            return lease
        except LockBusyError:
            result = "busy"
            raise
        except UnavailableError:
            result = "unavailable"
            raise
        finally:
            self._observer.lock_waiters(-1)
            self._observer.waited((coupon_name,), result, time.monotonic() - started)
            leaving = self._spawn(self._hand_over.leave(coupon_name))
            if result == "busy":  # a new wait must not start before the old place is given up
                await asyncio.shield(leaving)

    async def _attempt(self, coupon_names: Sequence[str]) -> RedlockLease:
        """Try once. The lease has the names whose locks were taken, which may be none."""
        started = time.monotonic()
        acquisition: Acquisition
        if len(coupon_names) == 1:
            acquisition = PotteryAcquisition(
                coupon_names[0],
                self._masters,
                instance=self._instance,
                ttl_seconds=self._ttl_seconds,
                combines=self._post is not None,
            )
        else:
            acquisition = MultiLockAcquisition(
                coupon_names,
                self._masters,
                instance=self._instance,
                ttl_seconds=self._ttl_seconds,
                validity_seconds=self._validity_seconds,
                combines=self._post is not None,
            )
        taking = self._spawn(acquisition.take())
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._spawn(self._undo(taking, acquisition))
            raise
        except UnavailableError:
            for name in coupon_names:
                self._observer.attempted(name, "unavailable")
            raise
        for name in coupon_names:
            self._observer.attempted(name, "acquired" if name in taken else "busy")
        self._observer.taken(taken)
        return RedlockLease(acquisition, taken, self._hand_over, started + self._validity_seconds)

    def _give_up(self, state: RetryCallState) -> None:
        raise LockBusyError("other instances held the coupon's lock until the timeout; nothing was decided")

    async def _undo(self, taking: "asyncio.Task[Sequence[str]]", acquisition: Acquisition) -> None:
        """Release the locks after their caller was cancelled during `take`, so that no keys remain."""
        with suppress(UnavailableError):
            if taken := await taking:
                await acquisition.give_back(taken)

    async def _release_shielded(self, lease: RedlockLease) -> None:
        # Shielded: a cancelled caller returns immediately, and the release continues.
        await asyncio.shield(self._spawn(self._release(lease)))

    async def _release(self, lease: RedlockLease) -> None:
        """Release the locks. Failures are logged, not raised: the work under the lock is done and valid."""
        self._observer.held(lease.coupon_names, time.monotonic() - lease.acquired_at)
        try:
            given_back = await lease.acquisition.give_back(lease.coupon_names)
        except UnavailableError:
            _log.warning("locks could not be given back and must expire", coupons=len(lease.coupon_names))
            return
        for name in given_back.lost:
            self._observer.lost(name)
            _log.warning("lock was lost before it was given back", coupon=name)
        lease.handed_over = given_back.woken
        for _ in given_back.woken:
            self._observer.hinted("sent")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` in its own task, so that cancelling the caller does not cancel it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _NullObserver:
    """`ports.LockObserver` that discards everything."""

    def attempted(self, coupon_name: str, result: str) -> None: ...
    def retried(self, coupon_name: str) -> None: ...
    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None: ...
    def taken(self, coupon_names: Sequence[str]) -> None: ...
    def held(self, coupon_names: Sequence[str], seconds: float) -> None: ...
    def lost(self, coupon_name: str) -> None: ...
    def hinted(self, result: str) -> None: ...
    def lock_waiters(self, change: int) -> None: ...


@asynccontextmanager
async def open_redlocks(
    masters: Sequence[Master],
    *,
    ttl_seconds: float,
    retries: int,
    retry_wait_seconds: float,
    observer: LockObserver,
    instance: str | None = None,
    combines: bool = False,
) -> AsyncIterator[Redlocks]:
    """Open `Redlocks` for this instance. On leaving, wait for the releases in progress.

    Args:
        instance: a unique name of this instance; by default the one of `instance_name`.
        combines: whether this instance decides batches that are handed to it while it holds a lock.

    The other arguments are those of `Redlocks`.
    """
    instance = instance or instance_name()
    async with (
        open_hand_over(instance, masters, observer) as hand_over,
        open_post(instance, masters) if combines else nullcontext() as post,
    ):
        if post is not None:
            hand_over.invited = post.invited
        locks = Redlocks(
            masters,
            hand_over,
            instance=instance,
            ttl_seconds=ttl_seconds,
            retries=retries,
            retry_wait_seconds=retry_wait_seconds,
            observer=observer,
            post=post,
        )
        try:
            yield locks
        finally:
            await locks.aclose()
