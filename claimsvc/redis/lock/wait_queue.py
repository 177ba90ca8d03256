"""Hand-over between instances: who gives a lock back wakes the instance that has waited longest for it.

An instance that finds a lock busy joins the line `claim:waiting:<name>` on one master, chosen by the name. Giving the
lock back (`release.lua`) pops the first of the line and puts the name on its list `claim:hints:<instance>`, on which
each instance blocks with one connection per master. All of this is advice: a hint that is lost, or sent in vain, costs
time and nothing else, and never more than the pause between two attempts.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto

import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from claimsvc.ports import LockObserver
from claimsvc.redis.masters import Client, Master, being_cancelled, place_of
from claimsvc.redis.scripts import Script

_wait = Script("lock_wait.lua")

_log = structlog.get_logger("claimsvc.lock")

# How long a woken instance's turn is kept for it before others may take the lock: some round trips.
TURN_MILLISECONDS = 50
# A hint that is read later than this is of no use: the instance has tried again meanwhile.
HINT_MILLISECONDS = 1000
# An instance that waits says so again at every pause; one that died is forgotten after this.
_PLACE_MILLISECONDS = 5000

_LISTEN_SECONDS = 1.0
_LISTEN_AGAIN_SECONDS = 0.5


class Wake(Enum):
    """Why a wait in line ended."""

    OUR_TURN = auto()
    FREE = auto()
    NONE = auto()


class HandOver:
    """This instance's places in the lines, and the hints it gets.

    Args:
        instance: a name that no other instance has.
        masters: all masters, in the same order in every instance.
    """

    def __init__(self, instance: str, masters: Sequence[Master], observer: LockObserver) -> None:
        self._instance = instance
        self._masters = tuple(masters)
        self._observer = observer
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._since: dict[str, str] = {}
        self._in_line: dict[str, Master] = {}

    def _line_masters(self, coupon_name: str, passed_over: int) -> list[Master]:
        """Where the line of this coupon may be: on the first of these that takes it; the name chooses their order."""
        first = (place_of(coupon_name, len(self._masters)) + passed_over) % len(self._masters)
        return [master for master in self._masters[first:] + self._masters[:first] if master.up]

    async def wait(self, coupon_name: str, seconds: float, *, passed_over: int = 0) -> Wake:
        """Wait in line, about so long at most, until it is worth trying. Our place is kept until `leave`.

        Several may wait for the same lock here: they share one place, and a hint wakes one of them.

        Args:
            passed_over: how many masters, of those on which the line may be, are not to be asked before the others.
        """
        until = time.monotonic() + seconds
        woken = asyncio.Event()
        waiting = self._waiting.setdefault(coupon_name, [])
        waiting.append(woken)
        try:
            if not await self._join(coupon_name, passed_over):
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

    async def _join(self, coupon_name: str, passed_over: int) -> bool:
        """Join the line; False if the lock is free for us to take."""
        since = self._since.setdefault(coupon_name, "")
        for master in self._line_masters(coupon_name, passed_over):
            self._in_line[coupon_name] = master
            try:
                answer = await _wait(
                    master, [f"claim:coupon:{coupon_name}"], self._instance, since, _PLACE_MILLISECONDS
                )
            except RedisError:
                continue  # it is gone by now, or it takes no writes; the line is on the next then
            if not answer:
                return False
            self._since[coupon_name] = answer.decode()
            return True
        return True  # no hints, then: the next attempt comes when its pause is over

    async def leave(self, coupon_name: str) -> None:
        """Give up our place, unless another still waits here, so that no hint is wasted on us."""
        if coupon_name in self._waiting:
            return
        self._since.pop(coupon_name, None)
        if master := self._in_line.pop(coupon_name, None):
            with contextlib.suppress(RedisError):
                await master.zrem(f"claim:waiting:{coupon_name}", self._instance)

    async def is_wanted(self, coupon_name: str) -> bool:
        """Whether another instance waits for this lock. If nobody can tell: yes.

        Every master is asked, because an instance that cannot reach the line's own master waits on the next.
        """
        line = f"claim:waiting:{coupon_name}"
        answers = await asyncio.gather(*(master.exists(line) for master in self._masters), return_exceptions=True)
        told = [answer for answer in answers if not isinstance(answer, RedisError)]
        return not told or any(told)

    def _hint(self, coupon_name: str) -> None:
        self._in_line.pop(coupon_name, None)
        sleeping = [woken for woken in self._waiting.get(coupon_name, ()) if not woken.is_set()]
        self._observer.hinted("used" if sleeping else "late")
        if sleeping:
            sleeping[0].set()

    async def listen(self, master: Master) -> None:
        """Receive this instance's hints from one master, for ever."""
        hints = f"claim:hints:{self._instance}"
        listener = Client.from_url(
            master.url,
            socket_timeout=_LISTEN_SECONDS + 1.0,
            socket_connect_timeout=_LISTEN_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            while not being_cancelled():
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
    """This instance's side of the hand-over, listening until it is left."""
    hand_over = HandOver(instance, masters, observer)
    listeners = [asyncio.create_task(hand_over.listen(master)) for master in masters]
    try:
        yield hand_over
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
