"""The console's heart: reads the figures, tells the others if they ask, paints one picture for all viewers.

With no viewer anywhere this is one reading and one question to Redis each half second. With any number of viewers it
is one picture for all of them, put into bytes once.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import orjson
import structlog

from claimsvc.domain import Coupon
from claimsvc.errors import TransientError
from claimsvc.live.events import Events
from claimsvc.live.merge import Heard, Painter
from claimsvc.live.picture import StressTest
from claimsvc.live.relay import Relay
from claimsvc.live.summary import Summary, Window
from claimsvc.live.verdict import Verdict, judge
from claimsvc.masters import Master, being_cancelled
from claimsvc.metrics import Metrics, read_totals

_log = structlog.get_logger("claimsvc.live")

UPDATE_SECONDS = 0.1
_IDLE_SECONDS = 0.5
_STOCK_SECONDS = 0.2
_VERDICT_SECONDS = 1.0
# An instance that says nothing for so long is called silent; one that is silent for so long is forgotten.
_SILENT_SECONDS = 2.5
_FORGOTTEN_SECONDS = 60.0
_MOST_INSTANCES = 200
# While nothing happens a picture is sent this seldom, and if it says what the last one said, not at all: a beat says
# that we live.
_BEAT_SECONDS = 1.0
_BEAT = b"event: beat\ndata: {}\n\n"
# Tells the browser how long to wait before it connects again, in milliseconds.
_GREETING = b"retry: 1000\n\n"
_FAREWELL = b"event: farewell\ndata: {}\n\n"


class Viewer(Protocol):
    """Somebody who watches."""

    async def send(self, frame: bytes) -> None:
        """Pass on one message, or leave it out if the last ones were not taken yet: never wait, never keep many."""
        ...

    def end(self) -> None:
        """There will be no more."""
        ...


class Live:
    """What happens now, in all instances together.

    Args:
        metrics: this process's figures.
        masters: all masters of the lock.
        stock: looks coupons up.
        pool_size: most connections to PostgreSQL.
        most_viewers: more are refused.
    """

    def __init__(
        self,
        metrics: Metrics,
        masters: Sequence[Master],
        stock: Callable[[Sequence[str]], Awaitable[list[Coupon]]],
        *,
        pool_size: int,
        most_viewers: int = 100,
    ) -> None:
        self.most_viewers = most_viewers
        self.scenarios: Sequence[str] = ()
        self.stress_test: StressTest | None = None
        self.published = 0
        self.is_stopping = False
        self._metrics = metrics
        self._read_stock = stock
        self._events = Events()
        self._window = Window(secrets.token_hex(8), f"{socket.gethostname()[:20]}:{os.getpid()}", pool_size)
        self._relay = Relay(masters, self._hear)
        self._heard: dict[str, tuple[Summary, float]] = {}
        self._painter = Painter()
        self._stock: dict[str, Coupon] = {}
        self._names: list[str] = []
        self._listeners = 0
        self._viewers: set[Viewer] = set()
        self._watched = asyncio.Event()  # set while there are viewers
        self._verdict: tuple[float, Verdict] | None = None
        self._last_picture = b""
        self._frame: bytes | None = None
        self._sent_at = 0.0

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    def coupon_created(self, coupon: Coupon) -> None:
        """Tell it as an event."""
        self._events.add("coupon-created", coupon.name, coupon.amount)

    def stress_test_started(self, test: StressTest) -> None:
        """Show it, and what becomes of it."""
        self.stress_test = test
        self._events.add("stress-test", test.scenario)

    async def join(self, viewer: Viewer) -> None:
        """Begin to send it pictures: the last one at once, if there is one."""
        self._viewers.add(viewer)
        self._watched.set()
        await viewer.send(_GREETING + (self._frame or b""))

    def leave(self, viewer: Viewer) -> None:
        """Send it no more."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._watched.clear()

    async def dismiss_viewers(self) -> None:
        """Take no more viewers, and end those that are here."""
        self.is_stopping = True
        for viewer in tuple(self._viewers):
            await viewer.send(_FAREWELL)
            viewer.end()
            self.leave(viewer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Live while inside."""
        tasks = [asyncio.create_task(_for_ever(work)) for work in (self._tick, self._tell, self._serve_viewers)]
        try:
            yield
        finally:
            await self.dismiss_viewers()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._listeners > 0:
                await self._relay.publish(self._window.summary(self._events, is_leaving=True))

    async def _tick(self) -> None:
        """One reading; if somebody watches here, one picture for them."""
        started = time.monotonic()
        totals = read_totals(self._metrics)
        before = self._window.add(totals)
        if before is not None:
            self._events.compare(before, totals)
        if self._viewers:
            await self._show()
        busy = self._viewers or self._listeners > 0
        pause = started + (UPDATE_SECONDS if busy else _IDLE_SECONDS) - time.monotonic()
        if self._viewers:
            await asyncio.sleep(max(0.0, pause))
        else:
            await _wait(self._watched, pause)

    async def _tell(self) -> None:
        """One summary for others that watch, or one question whether there are any."""
        if self._listeners > 0:
            self.published += 1
            self._listeners = await self._relay.publish(self._window.summary(self._events))
            await asyncio.sleep(UPDATE_SECONDS)
        else:
            self._listeners = await self._relay.listeners()
            if self._listeners <= 0:
                await asyncio.sleep(_IDLE_SECONDS)

    async def _serve_viewers(self) -> None:
        """While there are viewers: hear the others, and keep the stock up to date."""
        await self._watched.wait()
        async with self._relay.listening():
            while self._viewers:
                with contextlib.suppress(TransientError):
                    if self._names:
                        self._stock = {coupon.name: coupon for coupon in await self._read_stock(self._names)}
                await asyncio.sleep(_STOCK_SECONDS)
        self._heard.clear()
        self._frame, self._verdict, self._stock = None, None, {}

    def _hear(self, summary: Summary) -> None:
        if summary.id == self._window.id:
            return
        if summary.is_leaving:
            self._heard.pop(summary.id, None)
            return
        if summary.id in self._heard or len(self._heard) < _MOST_INSTANCES:
            self._heard[summary.id] = summary, time.monotonic()

    async def _show(self) -> None:
        """Paint the picture and send it, if it is not the last one again."""
        now = time.monotonic()
        self._heard = {key: each for key, each in self._heard.items() if now - each[1] < _FORGOTTEN_SECONDS}
        here = Heard(self._window.summary(self._events), 0.0, is_here=True)
        others = [
            Heard(summary, now - at, is_silent=now - at > _SILENT_SECONDS) for summary, at in self._heard.values()
        ]
        heard = [here, *sorted(others, key=lambda each: each.summary.name)]
        self._names = self._painter.coupons_shown(heard)
        picture = self._painter.paint(heard, self._names, self._stock, hears_others=self._relay.hears)
        if self._verdict is None or now - self._verdict[0] >= _VERDICT_SECONDS:
            self._verdict = now, judge(picture)
        told = orjson.dumps(
            {
                "verdict": self._verdict[1],
                "picture": picture,
                "viewers": len(self._viewers),
                "stress_test": self.stress_test,
                "scenarios": self.scenarios,
            }
        )
        is_due = now - self._sent_at >= _BEAT_SECONDS
        if self._frame is None or (told != self._last_picture and (is_due or picture.is_busy)):
            self._last_picture = told
            self._frame = b'event: picture\ndata: {"at":%d,%b\n\n' % (time.time() * 1000, told[1:])
            await self._send(self._frame, now)
        elif is_due:
            await self._send(_BEAT, now)

    async def _send(self, frame: bytes, now: float) -> None:
        self._sent_at = now
        for viewer in tuple(self._viewers):
            await viewer.send(frame)


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    while not being_cancelled():
        try:
            await work()
        except Exception:  # noqa: BLE001 - whatever breaks here must not touch claims, nor end the console for good
            _log.exception("the console failed")
            await asyncio.sleep(_IDLE_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
