"""`ports.Lock`: when to try, when to wait and when to give up. This is the only file that knows tenacity.

An acquisition is a task of ours: cancelling the caller undoes it, and leaves no key behind for its TTL. Giving back is
never the body's failure: it is logged and counted. A lease knows its own end, from a clock read before the first
master was asked.
"""

import asyncio
import copy
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_fixed

from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.ports import LockObserver
from claimsvc.redis.lock.acquisition import Acquisition
from claimsvc.redis.lock.identity import instance_name
from claimsvc.redis.lock.multi_lock import GroupAcquisition
from claimsvc.redis.lock.pottery_lock import SingleAcquisition
from claimsvc.redis.lock.wait_queue import HandOver, Wake, open_hand_over
from claimsvc.redis.masters import Master

_log = structlog.get_logger("claimsvc.lock")

# Redlock's allowance for clocks that run at different speeds: 1 % of the TTL plus 2 ms, as pottery reckons it
# (https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/).
_CLOCK_DRIFT_FACTOR = 0.01
_CLOCK_DRIFT_SECONDS = 0.002

# Longest random delay before another try at a lock that looks free: so that a vote that was split is not split again.
_SPREAD_SECONDS = 0.01


class RedlockLease:
    """`ports.Lease`. Times are monotonic seconds."""

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

    async def is_wanted(self) -> bool:
        # Of several locks some other is always wanted, or may be; asking for each would cost more than it saves.
        return len(self.coupon_names) != 1 or await self._hand_over.is_wanted(self.coupon_names[0])


class Redlocks:
    """`ports.Lock` on an odd number of independent masters.

    Terminal at once: a majority of masters that does not answer. Transient, and tried again: the lock is another's.

    Args:
        masters: clients of the masters, with time-outs and without retries of their own.
        instance: the name of this instance, with which its tokens begin.
        hand_over: the line in which this instance waits for a busy lock.
        ttl_seconds: when a lock that nobody gives back becomes free.
        retries: attempts after the first. An attempt that follows a hint is none of them.
        retry_wait_seconds: the pause between two attempts.
        observer: told of every attempt, wait and hold.
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
    ) -> None:
        self._masters = tuple(masters)
        self._hand_over = hand_over
        self._instance = instance
        self._ttl_seconds = ttl_seconds
        self._validity_seconds = ttl_seconds * (1 - _CLOCK_DRIFT_FACTOR) - _CLOCK_DRIFT_SECONDS
        self._retries = retries
        self._retry_wait_seconds = retry_wait_seconds
        self._observer = observer
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def hold(self, coupon_name: str, *, was_busy: bool = False) -> AsyncIterator[RedlockLease]:
        lease = await self._wait_for(coupon_name, was_busy=was_busy)
        try:
            yield lease
        finally:
            await self._release_surely(lease)

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
                await self._release_surely(lease)

    def without_metrics(self) -> "Redlocks":
        """The same, closed with this one, whose observer is not told: for locks that are no coupon's."""
        twin = copy.copy(self)
        twin._observer = _Nobody()
        return twin

    async def aclose(self) -> None:
        """Wait until every lock that was being undone or given back is."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _wait_for(self, coupon_name: str, *, was_busy: bool) -> RedlockLease:
        """One attempt (unless it was just made) and the retries, by tenacity."""
        started = time.monotonic()
        attempts_left = self._retries + (not was_busy)
        next_attempt_at = started + self._retry_wait_seconds
        wake = Wake.NONE
        in_vain = 0

        async def attempt() -> RedlockLease:
            nonlocal attempts_left, next_attempt_at
            if wake is Wake.NONE or time.monotonic() >= next_attempt_at:
                attempts_left -= 1
                next_attempt_at = time.monotonic() + self._retry_wait_seconds
            return await self._attempt((coupon_name,))

        async def pause(_: float = 0.0) -> None:
            """Until the next attempt is due, or until it is worth trying before that."""
            nonlocal wake, in_vain
            if wake is Wake.FREE:
                # It was called free and was not to be had: others try too. Or, if that happens again, the master that
                # we ask has forgotten it, or takes no locks: then we wait in line on another.
                in_vain += 1
                await asyncio.sleep(random.uniform(0, _SPREAD_SECONDS))  # noqa: S311
            wake = await self._hand_over.wait(
                coupon_name, next_attempt_at - time.monotonic(), passed_over=max(0, in_vain - 1)
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
            if result == "busy":  # whoever tries again must not lose its new place to the old one's end
                await asyncio.shield(leaving)

    async def _attempt(self, coupon_names: Sequence[str]) -> RedlockLease:
        """Try once. The lease has the names whose locks were free."""
        started = time.monotonic()
        acquisition: Acquisition
        if len(coupon_names) == 1:
            acquisition = SingleAcquisition(
                coupon_names[0], self._masters, instance=self._instance, ttl_seconds=self._ttl_seconds
            )
        else:
            acquisition = GroupAcquisition(
                coupon_names,
                self._masters,
                instance=self._instance,
                ttl_seconds=self._ttl_seconds,
                validity_seconds=self._validity_seconds,
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
        raise LockBusyError("the coupon's lock was held by others all the while; nothing was decided")

    async def _undo(self, taking: "asyncio.Task[Sequence[str]]", acquisition: Acquisition) -> None:
        """Whoever wanted the locks was cancelled while the masters were being asked: leave no key behind."""
        with suppress(UnavailableError):
            if taken := await taking:
                await acquisition.give_back(taken)

    async def _release_surely(self, lease: RedlockLease) -> None:
        # Shielded: who is cancelled here goes at once, and the lock is given back all the same.
        await asyncio.shield(self._spawn(self._release(lease)))

    async def _release(self, lease: RedlockLease) -> None:
        """Give the locks back. A failure goes no further: the work under the lock is done and stands."""
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
        """Run `work` as a task of ours, which no caller's cancellation reaches."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Nobody:
    """`ports.LockObserver` that is not interested."""

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
) -> AsyncIterator[Redlocks]:
    """`Redlocks` for this instance. On leaving, every lock that was being given back is.

    Args:
        instance: a name that no other instance has; one that tells where it runs, unless given.

    The others are those of `Redlocks`.
    """
    instance = instance or instance_name()
    async with open_hand_over(instance, masters, observer) as hand_over:
        locks = Redlocks(
            masters,
            hand_over,
            instance=instance,
            ttl_seconds=ttl_seconds,
            retries=retries,
            retry_wait_seconds=retry_wait_seconds,
            observer=observer,
        )
        try:
            yield locks
        finally:
            await locks.aclose()
