"""The console's heart: reads the figures, tells the others if they ask, paints one picture for all viewers.

With no viewer anywhere this is one reading and one question to Redis each half second. With any number of viewers it
is one picture for all of them, put into bytes once.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import orjson
import structlog

from claimsvc.domain import Coupon, HeldLock
from claimsvc.errors import TransientError
from claimsvc.observability.console.diagnosis import Verdict, judge, suspect
from claimsvc.observability.console.events import Events
from claimsvc.observability.console.locks import Looked
from claimsvc.observability.console.membership import Attendance, Heard
from claimsvc.observability.console.merge import Painter
from claimsvc.observability.console.picture import Picture, StressTest
from claimsvc.observability.console.relay import Relay
from claimsvc.observability.console.summary import Summary, Window
from claimsvc.observability.metrics import Metrics, read_totals
from claimsvc.observability.metrics.busiest import OTHER
from claimsvc.redis.masters import Master, being_cancelled

_log = structlog.get_logger("claimsvc.live")

UPDATE_SECONDS = 0.1
_IDLE_SECONDS = 0.5
_STOCK_SECONDS = 0.2
_VERDICT_SECONDS = 1.0
_LOOK_SECONDS = 1.0
# Stock that was read longer ago than this is old, and said to be.
_OLD_STOCK_SECONDS = 2.0
_LONGEST_HOST = 20
# While nothing happens a picture is sent this seldom, and if it says what the last one said, not at all: a beat says
# that we live.
_BEAT_SECONDS = 1.0
# Tells the browser how long to wait before it connects again, in milliseconds.
_GREETING = b"retry: 1000\n\n"
_FAREWELL = b"event: farewell\ndata: {}\n\n"


class Viewer(Protocol):
    """Somebody who watches."""

    async def send(self, frame: bytes) -> bool:
        """Pass on one message, or leave it out if the last ones were not taken yet: never wait, never keep many.

        Returns whether there is still somebody.
        """
        ...

    def end(self) -> None:
        """There will be no more."""
        ...


class Live:
    """What happens now, in all instances together.

    Args:
        metrics: this process's figures.
        masters: all masters of the lock.
        stock: looks coupons up, all in one moment.
        look: asks the masters who holds a coupon's lock. Used while somebody watches, for one coupon a second at most.
        instance: this instance's name, unique, as the tokens of its locks begin with: host, process and chance.
        pool_size: most connections to PostgreSQL.
        most_viewers: more are refused.
    """

    def __init__(
        self,
        metrics: Metrics,
        masters: Sequence[Master],
        stock: Callable[[Sequence[str]], Awaitable[list[Coupon]]],
        look: Callable[[str], Awaitable[Sequence[HeldLock]]],
        *,
        instance: str,
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
        self._look = look
        self._events = Events()
        self._window = Window(instance, _shown(instance), pool_size)
        self._relay = Relay(masters, self._hear)
        self._others = Attendance(self._events)
        self._painter = Painter()
        self._stock: dict[str, Coupon] = {}
        self._stock_read_at = 0.0
        self._suspect: str | None = None
        self._looked: Looked | None = None
        self._names: list[str] = []
        self._listeners = 0
        self._viewers: set[Viewer] = set()
        self._watched = asyncio.Event()  # set while there are viewers
        self._verdict: Verdict | None = None
        self._judged_at = 0.0
        self._judged_by: Looked | None = None
        self._verdict_since = 0.0  # seconds since 1970
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

    @property
    def is_full(self) -> bool:
        return len(self._viewers) >= self.most_viewers

    def join(self, viewer: Viewer) -> None:
        """Begin to send it pictures."""
        self._viewers.add(viewer)
        self._watched.set()

    async def greet(self, viewer: Viewer) -> None:
        """Send it the last picture at once, if there is one. Who joined may have had a newer one meanwhile."""
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
        tasks = [
            asyncio.create_task(_for_ever(work))
            for work in (self._tick, self._tell, self._serve_viewers, self._look_at_suspect)
        ]
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
        self._others.begin()
        self._stock_read_at = time.monotonic()
        async with self._relay.listening():
            while self._viewers:
                with contextlib.suppress(TransientError):
                    # A coupon of that name shares its figures with all that have none of their own.
                    if names := [name for name in self._names if name != OTHER]:
                        stock = await self._read_stock(names)
                        self._stock = {coupon.name: coupon for coupon in stock}
                    self._stock_read_at = time.monotonic()
                await asyncio.sleep(_STOCK_SECONDS)
        self._frame, self._verdict, self._stock, self._suspect = None, None, {}, None

    async def _look_at_suspect(self) -> None:
        """Ask the masters of the one lock that the figures do not explain."""
        await self._watched.wait()
        if (name := self._suspect) is None:
            self._looked = None
        else:
            try:
                self._looked = Looked(name, tuple(await self._look(name)))
            except TransientError:
                self._looked = Looked(name, None)
        await asyncio.sleep(_LOOK_SECONDS if name else UPDATE_SECONDS)

    def _hear(self, summary: Summary) -> None:
        if summary.id != self._window.id:
            self._others.hear(summary)

    async def _show(self) -> None:
        """Paint the picture and send it, if it is not the last one again."""
        now = time.monotonic()
        heard = [Heard(self._window.summary(self._events), 0.0, is_here=True), *self._others.heard()]
        self._names = self._painter.coupons_shown(heard)
        stock_age = now - self._stock_read_at
        picture = self._painter.paint(
            heard,
            self._names,
            self._stock,
            hears_others=self._relay.hears,
            stock_age_seconds=int(stock_age) if stock_age > _OLD_STOCK_SECONDS else 0,
        )
        told = orjson.dumps(
            {
                "verdict": self._judge(picture, now),
                "verdict_since": self._verdict_since,
                "picture": picture,
                "viewers": len(self._viewers),
                "stress_test": self.stress_test,
                "scenarios": self.scenarios,
            }
        )
        is_due = now - self._sent_at >= _BEAT_SECONDS
        at = time.time() * 1000
        if self._frame is None or (told != self._last_picture and (is_due or picture.is_busy)):
            self._last_picture = told
            self._frame = b'event: picture\ndata: {"at":%d,%b\n\n' % (at, told[1:])
            await self._send(self._frame, now)
        elif is_due:
            # With the time, because the ages that are shown go on.
            await self._send(b'event: beat\ndata: {"at":%d}\n\n' % at, now)

    def _judge(self, picture: Picture, now: float) -> Verdict:
        """The verdict, which stays for a moment: figures that change ten times a second cannot be read."""
        self._suspect = suspect(picture)
        is_first_look = (self._looked is None) != (self._judged_by is None)
        if self._verdict is None or is_first_look or now - self._judged_at >= _VERDICT_SECONDS:
            self._judged_by = self._looked
            verdict = judge(picture, self._looked)
            if self._verdict is None or verdict.kind != self._verdict.kind:
                self._verdict_since = round(time.time(), 1)
            self._verdict, self._judged_at = verdict, now
        return self._verdict

    async def _send(self, frame: bytes, now: float) -> None:
        self._sent_at = now
        for viewer in tuple(self._viewers):
            try:
                is_here = await viewer.send(frame)
            except Exception:  # noqa: BLE001 - one that fails must not keep the picture from those after it
                _log.exception("a viewer of the console failed")
                is_here = False
            if not is_here:
                viewer.end()
                self.leave(viewer)


def _shown(instance: str) -> str:
    """The name for people: without chance, and no longer than a table has room for."""
    host, _, process = instance.rpartition(":")[0].rpartition(":")
    return f"{host[:_LONGEST_HOST]}:{process}"


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
