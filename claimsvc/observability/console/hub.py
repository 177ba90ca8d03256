"""The console's hub: reads the metrics, publishes summaries to other instances, and sends one picture to all viewers.

Without viewers on any instance it makes one reading and one call to Redis each half second. With viewers it builds and
serializes one picture for all of them.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import orjson
import structlog

from claimsvc.background import end
from claimsvc.domain import Coupon
from claimsvc.errors import TransientError
from claimsvc.observability.console.diagnosis import Diagnosis
from claimsvc.observability.console.events import Events
from claimsvc.observability.console.health import CHECK_SECONDS, HealthWatch, Report
from claimsvc.observability.console.inspection import FindHolders, Inspector, Look
from claimsvc.observability.console.membership import Heard, Membership
from claimsvc.observability.console.merge import PictureBuilder
from claimsvc.observability.console.picture import Picture, StressTest
from claimsvc.observability.console.queues import QueueWatch, ReadQueues
from claimsvc.observability.console.relay import Relay
from claimsvc.observability.console.summary import Summary, Window
from claimsvc.observability.console.verdict import Scene, Verdict
from claimsvc.observability.metrics import Metrics, read_totals
from claimsvc.observability.metrics.busiest import OTHER
from claimsvc.redis.masters import Master

_log = structlog.get_logger("claimsvc.live")

UPDATE_SECONDS = 0.1
DEPENDENCIES = ("postgresql", "redis")
_IDLE_SECONDS = 0.5
_STOCK_SECONDS = 0.2
_VERDICT_SECONDS = 1.0
# Stock that was read longer ago than this is shown as outdated.
_OLD_STOCK_SECONDS = 2.0
_LONGEST_HOST = 20
# Without activity, pictures are sent at this interval. If the picture has not changed, a beat is sent instead.
_BEAT_SECONDS = 1.0
# Sets the browser's reconnection delay (milliseconds).
_GREETING = b"retry: 1000\n\n"
_FAREWELL = b"event: farewell\ndata: {}\n\n"


class Viewer(Protocol):
    """One connection to the console's stream."""

    async def send(self, frame: bytes) -> bool:
        """Send one message, or drop it if earlier ones have not been sent yet. Must not wait or buffer many.

        Returns:
            Whether the viewer is still connected.
        """
        ...

    def end(self) -> None:
        """Close the connection."""
        ...


class Live:
    """The console's live picture of all instances.

    Args:
        metrics: of this process.
        masters: all masters of the lock.
        stock: reads coupons, all at one point in time.
        look: reads a coupon's lock from the masters. Called at most once a second, and only while there are viewers.
        find_holders: finds sessions of PostgreSQL that hold rows of coupons. Called likewise.
        readiness: tells the state of each of `DEPENDENCIES`.
        queues: reads the state of all queues. Called once a second, and only while there are viewers.
        instance: this instance's unique name, with which the tokens of its locks begin.
        pool_size: most connections to PostgreSQL.
        most_viewers: further viewers are refused.
        most_of_address: further viewers of one address are refused.
    """

    def __init__(
        self,
        metrics: Metrics,
        masters: Sequence[Master],
        stock: Callable[[Sequence[str]], Awaitable[list[Coupon]]],
        look: Look,
        find_holders: FindHolders,
        readiness: Report,
        queues: ReadQueues,
        *,
        instance: str,
        pool_size: int,
        most_viewers: int = 100,
        most_of_address: int = 50,
    ) -> None:
        self.most_viewers = most_viewers
        self.most_of_address = most_of_address
        self.scenarios: Sequence[str] = ()
        self.stress_test: StressTest | None = None
        self.published = 0
        self.is_stopping = False
        self._metrics = metrics
        self._read_stock = stock
        self._inspector = Inspector(look, find_holders)
        self._health = HealthWatch(readiness, DEPENDENCIES)
        self._queues = QueueWatch(queues, _shown)
        self._events = Events()
        self._window = Window(instance, _shown(instance), pool_size)
        self._relay = Relay(masters, self._hear)
        self._others = Membership(self._events)
        self._builder = PictureBuilder()
        self._stock: dict[str, Coupon] = {}
        self._stock_read_at = 0.0
        self._names: list[str] = []
        self._listeners = 0
        self._viewers: dict[Viewer, str] = {}  # and their addresses
        self._watched = asyncio.Event()  # set while there are viewers
        self._diagnosis = Diagnosis()
        self._noted_at = 0.0
        self._verdict_kind = ""
        self._verdict_since = 0.0  # seconds since 1970
        self._last_picture = b""
        self._frame: bytes | None = None
        self._sent_at = 0.0

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    def coupon_created(self, coupon: Coupon) -> None:
        """Record the creation of a coupon as an event."""
        self._events.add("coupon-created", coupon.name, coupon.amount)

    def stress_test_started(self, test: StressTest) -> None:
        """Show a stress test, and its result when it has ended."""
        self.stress_test = test
        self._events.add("stress-test", test.scenario)

    @property
    def is_full(self) -> bool:
        return len(self._viewers) >= self.most_viewers

    def is_full_for(self, address: str) -> bool:
        """Whether this address has all the viewers that one may have, so that others can watch, too."""
        return sum(each == address for each in self._viewers.values()) >= self.most_of_address

    def join(self, viewer: Viewer, address: str = "") -> None:
        """Add a viewer.

        Args:
            viewer: receives the pictures.
            address: of its client.
        """
        self._viewers[viewer] = address
        self._watched.set()

    async def greet(self, viewer: Viewer) -> None:
        """Send the last picture to a new viewer, if there is one. The viewer may already have received a newer one."""
        await viewer.send(_GREETING + (self._frame or b""))

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer."""
        self._viewers.pop(viewer, None)
        if not self._viewers:
            self._watched.clear()

    async def dismiss_viewers(self) -> None:
        """Refuse further viewers, and close the connections of all others."""
        self.is_stopping = True
        for viewer in tuple(self._viewers):
            await viewer.send(_FAREWELL)
            viewer.end()
            self.leave(viewer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the hub while the context is active."""
        tasks = [
            asyncio.create_task(_repeat(work))
            for work in (
                self._tick,
                self._publish,
                self._serve_viewers,
                self._check_health,
                partial(self._while_watched, self._inspector.look_at_lock),
                partial(self._while_watched, self._inspector.look_at_rows),
                partial(self._while_watched, self._queues.look),
            )
        ]
        try:
            yield
        finally:
            await self.dismiss_viewers()
            await end(tasks)
            if self._listeners > 0:
                await self._relay.publish(self._summary(is_leaving=True))

    async def _tick(self) -> None:
        """Make one reading, and one picture if there are viewers here."""
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

    async def _publish(self) -> None:
        """Publish one summary if other instances have viewers; otherwise check whether any has."""
        if self._listeners > 0:
            self.published += 1
            self._listeners = await self._relay.publish(self._summary())
            await asyncio.sleep(UPDATE_SECONDS)
        else:
            self._listeners = await self._relay.listeners()
            if self._listeners <= 0:
                await asyncio.sleep(_IDLE_SECONDS)

    async def _serve_viewers(self) -> None:
        """Receive the summaries of other instances and refresh the stock, while there are viewers."""
        await self._watched.wait()
        self._others.begin()
        self._stock_read_at = time.monotonic()
        async with self._relay.listening():
            while self._viewers:
                with contextlib.suppress(TransientError):
                    # OTHER stands for all coupons without figures of their own, so it is not looked up.
                    if names := [name for name in self._names if name != OTHER]:
                        stock = await self._read_stock(names)
                        self._stock = {coupon.name: coupon for coupon in stock}
                    self._stock_read_at = time.monotonic()
                await asyncio.sleep(_STOCK_SECONDS)
        self._frame, self._stock = None, {}
        self._diagnosis = Diagnosis()
        self._inspector.forget()
        self._queues.forget()

    async def _check_health(self) -> None:
        """Follow readiness, watched or not, so that a viewer who comes later is told since when it has been so."""
        await self._health.check()
        await asyncio.sleep(CHECK_SECONDS)

    async def _while_watched(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._watched.wait()
        await work()

    def _summary(self, *, is_leaving: bool = False) -> Summary:
        return self._window.summary(self._events, health=self._health.states, is_leaving=is_leaving)

    def _hear(self, summary: Summary) -> None:
        if summary.id != self._window.id:
            self._others.hear(summary)

    async def _show(self) -> None:
        """Build the picture and send it, unless it equals the last one."""
        now = time.monotonic()
        heard = [Heard(self._summary(), 0.0, is_here=True), *self._others.heard()]
        # Who started first comes first, for every viewer: their letters are the same wherever the page is served.
        heard.sort(key=lambda each: (each.summary.started_at, each.summary.id))
        self._names = self._builder.coupons_shown(heard)
        stock_age = now - self._stock_read_at
        build = partial(
            self._builder.build,
            heard,
            self._names,
            self._stock,
            hears_others=self._relay.hears,
            stock_age_seconds=int(stock_age) if stock_age > _OLD_STOCK_SECONDS else 0,
        )
        picture = build()
        if now - self._noted_at >= _VERDICT_SECONDS:
            self._noted_at = now
            instant = build(is_instant=True)
            self._inspector.consider(instant)
            self._diagnosis.note(
                Scene(instant, self._inspector.looked, self._inspector.holders, self._queues.shown.rows)
            )
        verdict = self._judge(picture)
        document = orjson.dumps(
            {
                "verdict": verdict,
                "verdict_since": self._verdict_since if verdict.since is None else verdict.since,
                "picture": picture,
                "queues": self._queues.shown,
                "viewers": len(self._viewers),
                "stress_test": self.stress_test,
                "scenarios": self.scenarios,
            }
        )
        is_due = now - self._sent_at >= _BEAT_SECONDS
        at = time.time() * 1000
        if self._frame is None or (document != self._last_picture and (is_due or picture.is_busy)):
            self._last_picture = document
            self._frame = b'event: picture\ndata: {"at":%d,%b\n\n' % (at, document[1:])
            await self._send(self._frame, now)
        elif is_due:
            # With the time, so that the page can update the ages it shows.
            await self._send(b'event: beat\ndata: {"at":%d}\n\n' % at, now)

    def _judge(self, picture: Picture) -> Verdict:
        verdict = self._diagnosis.judge(
            picture, self._inspector.looked, self._inspector.holders, self._queues.shown.rows
        )
        if verdict.kind != self._verdict_kind:
            self._verdict_kind, self._verdict_since = verdict.kind, round(time.time(), 1)
        return verdict

    async def _send(self, frame: bytes, now: float) -> None:
        self._sent_at = now
        for viewer in tuple(self._viewers):
            try:
                is_here = await viewer.send(frame)
            except Exception:  # noqa: BLE001 - a viewer that fails must not affect the others
                _log.exception("a viewer of the console failed")
                is_here = False
            if not is_here:
                viewer.end()
                self.leave(viewer)


def _shown(instance: str) -> str:
    """Return the name for people: without the random part, and short enough for a table."""
    host, _, process = instance.rpartition(":")[0].rpartition(":")
    return f"{host[:_LONGEST_HOST]}:{process}"


async def _repeat(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - a failure must not end the console
            _log.exception("the console failed")
            await asyncio.sleep(_IDLE_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
