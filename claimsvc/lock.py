"""The Redlock `claim:coupon:<name>`: pottery on independent Redis masters, retried through tenacity.

This is the only file that knows either library. What pottery leaves open is closed here:

* a fresh `AIORedlock`, and so a fresh token, for each acquisition;
* `acquire()` is called without its own endless loop, and told to raise when a majority of the masters is gone;
* an acquisition is a task of ours: cancelling the caller undoes it instead of leaving the key behind for its TTL;
* giving back is never the body's failure: it is logged and counted;
* a lease knows its own end, from a clock that was read before the acquisition.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.asyncio import Redis
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_fixed

from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.ports import LockObserver


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Undo what importing pottery does to the process: it replaces `json.dumps`, and it reads REDIS_URL and fails
    when that is not to its taste."""
    dumps, url = json.dumps, os.environ.pop("REDIS_URL", None)
    try:
        yield
    finally:
        json.dumps = dumps
        if url is not None:
            os.environ["REDIS_URL"] = url


with _contained():
    from pottery import AIORedlock
    from pottery.exceptions import QuorumIsImpossible, ReleaseUnlockedLock

# pottery logs a stack trace for each command that a master fails. Masters are watched in `masters`, one line a change.
logging.getLogger("pottery").disabled = True

_log = structlog.get_logger("claimsvc.lock")

# Redlock's allowance for clocks that run at different speeds: 1 % of the TTL plus 2 ms, as pottery reckons it
# (https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/).
_CLOCK_DRIFT_FACTOR = 0.01
_CLOCK_DRIFT_SECONDS = 0.002


class _CouponRedlock(AIORedlock):
    # pottery puts its prefix before the key: `claim` and `coupon:<name>` make `claim:coupon:<name>`.
    _KEY_PREFIX = "claim"


class _Lease:
    """A held lock, certainly ours until `expires_at`. Times are monotonic seconds."""

    __slots__ = ("acquired_at", "coupon_name", "expires_at", "redlock")

    def __init__(self, coupon_name: str, redlock: AIORedlock, *, acquired_at: float, expires_at: float) -> None:
        self.coupon_name = coupon_name
        self.redlock = redlock
        self.acquired_at = acquired_at
        self.expires_at = expires_at

    def seconds_left(self) -> float:
        return self.expires_at - time.monotonic()


class Redlocks:
    """`ports.Lock` on an odd number of independent masters.

    Terminal at once: a majority of masters that does not answer. Transient, and tried again: the lock is another's.

    Args:
        masters: clients of the masters, with time-outs and without retries of their own.
        ttl_seconds: when a lock that nobody gives back becomes free.
        retries: attempts after the first.
        retry_wait_seconds: the pause between two attempts.
        observer: told of every attempt, wait and hold.
    """

    def __init__(
        self,
        masters: Sequence[Redis],
        *,
        ttl_seconds: float,
        retries: int,
        retry_wait_seconds: float,
        observer: LockObserver,
    ) -> None:
        self._masters = tuple(masters)
        self._ttl_seconds = ttl_seconds
        self._validity_seconds = ttl_seconds * (1 - _CLOCK_DRIFT_FACTOR) - _CLOCK_DRIFT_SECONDS
        self._observer = observer
        self._tasks: set[asyncio.Task[Any]] = set()
        self._give_up_seconds = retries * retry_wait_seconds
        self._policy = AsyncRetrying(
            stop=stop_after_attempt(1 + retries),
            wait=wait_fixed(retry_wait_seconds),
            retry=retry_if_result(lambda lease: lease is None),
            retry_error_callback=self._give_up,
            before_sleep=lambda _: observer.retried(),
            sleep=asyncio.sleep,
        )

    @asynccontextmanager
    async def hold(self, coupon_name: str) -> AsyncIterator[_Lease]:
        lease = await self._acquire(coupon_name)
        try:
            yield lease
        finally:
            # Shielded: who is cancelled here goes at once, and the lock is given back all the same.
            await asyncio.shield(self._spawn(self._release(lease)))

    async def aclose(self) -> None:
        """Wait until every lock that was being undone or given back is."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _acquire(self, coupon_name: str) -> _Lease:
        started = time.monotonic()
        result = "cancelled"
        self._observer.lock_waiters(+1)
        try:
            lease: _Lease = await self._policy(self._attempt, coupon_name)
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
            self._observer.waited(result, time.monotonic() - started)

    async def _attempt(self, coupon_name: str) -> _Lease | None:
        """Try once. None: the lock is another's."""
        started = time.monotonic()
        redlock = _CouponRedlock(
            key=f"coupon:{coupon_name}", masters=self._masters, auto_release_time=self._ttl_seconds
        )
        acquiring = self._spawn(redlock.acquire(blocking=False, raise_on_redis_errors=True))
        try:
            acquired = await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            self._spawn(self._undo(acquiring, redlock))
            raise
        except QuorumIsImpossible as error:
            self._observer.attempted(coupon_name, "unavailable")
            raise UnavailableError("a majority of the lock's masters does not answer", dependency="redis") from error
        self._observer.attempted(coupon_name, "acquired" if acquired else "busy")
        if not acquired:
            return None
        return _Lease(coupon_name, redlock, acquired_at=time.monotonic(), expires_at=started + self._validity_seconds)

    def _give_up(self, state: RetryCallState) -> None:
        raise LockBusyError(
            "the coupon's lock was held by others all the while; nothing was decided",
            retry_after_seconds=self._give_up_seconds,
        )

    async def _undo(self, acquiring: "asyncio.Task[bool]", redlock: AIORedlock) -> None:
        """Whoever wanted the lock was cancelled while the masters were being asked: leave no key behind."""
        with contextlib.suppress(QuorumIsImpossible):
            if await acquiring:
                with contextlib.suppress(ReleaseUnlockedLock):
                    await redlock.release(raise_on_redis_errors=True)

    async def _release(self, lease: _Lease) -> None:
        """Give the lock back. A failure is noted and goes no further: the work under the lock is done and stands."""
        self._observer.held(time.monotonic() - lease.acquired_at)
        try:
            await lease.redlock.release(raise_on_redis_errors=True)
        except ReleaseUnlockedLock:
            self._observer.lost(lease.coupon_name)
            _log.warning("lock was lost before it was given back", coupon=lease.coupon_name)
        except QuorumIsImpossible:
            _log.warning("lock could not be given back and must expire", coupon=lease.coupon_name)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` as a task of ours, which no caller's cancellation reaches."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
