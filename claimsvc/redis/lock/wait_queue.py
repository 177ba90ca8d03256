"""Hand-over between instances: releasing a lock wakes the instance that has waited longest for it.

An instance that finds a lock busy joins the queue `claim:waiting:<name>` on one master, selected by the name. Releasing
the lock (`lock_release.lua`) pops the first instance of the queue and pushes the name to its list
`claim:hints:<instance>`; each instance blocks on its list with one connection per master. Hints are only advice: a lost
or superfluous hint costs at most the pause between two attempts.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto

import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from claimsvc.background import in_background
from claimsvc.ports import LockObserver
from claimsvc.redis.lock.identity import key_of
from claimsvc.redis.masters import Client, Master, place_of
from claimsvc.redis.scripts import Script

_wait = Script("lock_wait.lua")

_log = structlog.get_logger("claimsvc.lock")

# How long the lock is reserved for a woken instance: some round trips.
TURN_MILLISECONDS = 50
# A hint expires after this: the instance has made another attempt meanwhile.
HINT_MILLISECONDS = 1000
# A waiting instance renews its place at every pause. The place of a crashed instance expires after this.
_PLACE_MILLISECONDS = 5000

_LISTEN_SECONDS = 1.0
_LISTEN_AGAIN_SECONDS = 0.5


class Wake(Enum):
    """Why a wait ended: a hint arrived, the lock was found free, or the time was over."""

    OUR_TURN = auto()
    FREE = auto()
    NONE = auto()


class HandOver:
    """This instance's places in the wait queues, and the hints it receives.

    Args:
        instance: a unique name of this instance.
        masters: all masters, in the same order in every instance.
        observer: receives each hint.
    """

    def __init__(self, instance: str, masters: Sequence[Master], observer: LockObserver) -> None:
        self._instance = instance
        self._masters = tuple(masters)
        self._observer = observer
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._since: dict[str, str] = {}
        self._queued_on: dict[str, Master] = {}
        # Called with each coupon for whose lock this instance was woken without waiting for it.
        self.invited: Callable[[str], None] = lambda _: None

    def _queue_masters(self, coupon_name: str, skip: int) -> list[Master]:
        """Return the masters for the queue of this coupon, in the order in which to try them; the name selects it."""
        first = (place_of(coupon_name, len(self._masters)) + skip) % len(self._masters)
        return [master for master in self._masters[first:] + self._masters[:first] if master.up]

    async def wait(self, coupon_name: str, seconds: float, *, skip: int = 0) -> Wake:
        """Wait in the queue until an attempt is worthwhile. The place is kept until `leave`.

        Several tasks of this instance may wait for the same lock: they share one place, and a hint wakes one of them.

        Args:
            seconds: longest wait, approximately.
            skip: number of masters to move to the end of the order in which they are tried.
        """
        until = time.monotonic() + seconds
        woken = asyncio.Event()
        waiting = self._waiting.setdefault(coupon_name, [])
        waiting.append(woken)
        try:
            if not await self._join(coupon_name, skip):
                return Wake.FREE
            async with asyncio.timeout(until - time.monotonic()):
                await woken.wait()
                return Wake.OUR_TURN
        except TimeoutError:
            return Wake.NONE
        finally:
            waiting.remove(woken)
            if not waiting:
                self._waiting.pop(coupon_name, None)

    async def _join(self, coupon_name: str, skip: int) -> bool:
        """Join the queue. Returns False if the lock is free for this instance to take."""
        since = self._since.setdefault(coupon_name, "")
        for master in self._queue_masters(coupon_name, skip):
            self._queued_on[coupon_name] = master
            try:
                answer = await _wait(master, [key_of(coupon_name)], self._instance, since, _PLACE_MILLISECONDS)
            except RedisError:
                continue  # the master is down or takes no writes: queue on the next one
            if not answer:
                return False
            self._since[coupon_name] = answer.decode()
            return True
        return True  # without hints, the next attempt is made after the pause

    async def leave(self, coupon_name: str) -> None:
        """Give up the place, so that no hint is wasted on it; unless another task here still waits."""
        if coupon_name in self._waiting:
            return
        self._since.pop(coupon_name, None)
        if master := self._queued_on.pop(coupon_name, None):
            with contextlib.suppress(RedisError):
                await master.zrem(f"claim:waiting:{coupon_name}", self._instance)

    async def is_wanted(self, coupon_name: str) -> bool:
        """Whether another instance waits for this lock. True if no master answers.

        Every master is asked, because an instance that cannot reach the first master of the queue waits on the next.
        """
        queue = f"claim:waiting:{coupon_name}"
        results = await asyncio.gather(*(master.exists(queue) for master in self._masters), return_exceptions=True)
        answers = [result for result in results if not isinstance(result, RedisError)]
        return not answers or any(answers)

    def _hint(self, coupon_name: str) -> None:
        self._queued_on.pop(coupon_name, None)
        sleeping = [woken for woken in self._waiting.get(coupon_name, ()) if not woken.is_set()]
        self._observer.hinted("used" if sleeping else "late")
        if sleeping:
            sleeping[0].set()
        else:
            self.invited(coupon_name)

    async def listen(self, master: Master) -> None:
        """Receive this instance's hints from one master, until cancelled."""
        hints = f"claim:hints:{self._instance}"
        listener = Client.from_url(
            master.url,
            socket_timeout=_LISTEN_SECONDS + 1.0,
            socket_connect_timeout=_LISTEN_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            while True:
                try:
                    received = await listener.blpop([hints], timeout=_LISTEN_SECONDS)
                except RedisError:
                    await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
                else:
                    if received is not None:
                        self._hint(str(received[1], "ascii") if isinstance(received[1], bytes) else received[1])
        finally:
            await listener.aclose()


@asynccontextmanager
async def open_hand_over(instance: str, masters: Sequence[Master], observer: LockObserver) -> AsyncIterator[HandOver]:
    """Open this instance's side of the hand-over. It listens for hints until the context is left."""
    hand_over = HandOver(instance, masters, observer)
    async with in_background(*(hand_over.listen(master) for master in masters)):
        yield hand_over
