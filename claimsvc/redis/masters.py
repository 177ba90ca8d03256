"""Clients of the Redis masters, which are watched: one that does not answer costs a claim nothing after the first."""

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from claimsvc.errors import UnavailableError
from claimsvc.ports import MasterObserver

_log = structlog.get_logger("claimsvc.masters")

_WATCH_INTERVAL_SECONDS = 1.0
_RECOVERY_INTERVAL_SECONDS = 0.2
# As many as may be under way when a master fails, and some.
_MOST_OWED = 1000


class MasterDownError(RedisConnectionError):
    """The master was found down by an earlier command, and has not answered since."""


class Client(Redis):
    """A client that calls a lost connection a `RedisError`, whatever event loop it was lost on."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            # What uvloop raises when a connection was reset just before it is written to; redis-py lets it through.
            if "the handler is closed" not in str(error):
                raise
            raise RedisConnectionError("the connection was lost") from error


class Master(Client):
    """A client of one master that fails at once while the master is known to be down.

    Without this, a master that hangs would cost every lock its whole time-out, twice.
    """

    def __init__(self, url: str, *, timeout_seconds: float, pool_size: int, observer: MasterObserver) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=pool_size,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # redis-py would try ten times more. Whether to try again is the lock's decision.
            retry=Retry(NoBackoff(), 0),
            client_name="claimsvc",
        )
        super().__init__(connection_pool=pool)
        self.url = url
        where = pool.connection_kwargs
        self.name = f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
        self.up = True
        self._observer = observer
        self.found_down = asyncio.Event()
        self._down_since = 0.0
        self._owed: list[tuple[float, Callable[[], Awaitable[object]]]] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if not self.up:
            raise MasterDownError(f"{self.name} is down")
        try:
            return await self.call(*args, **options)
        except (RedisConnectionError, RedisTimeoutError):
            # A full pool looks the same from here; the watch asks the master itself, at once.
            self.mark(up=False)
            self.found_down.set()
            raise

    async def call(self, *args: Any, **options: Any) -> Any:
        """Ask the master itself, whatever is known of it."""
        started = time.monotonic()
        try:
            return await super().execute_command(*args, **options)
        finally:
            self._observer.master_called(self.name, time.monotonic() - started)

    def mark(self, *, up: bool) -> None:
        """Remember whether it answers."""
        if self.up and not up:
            self._down_since = time.monotonic()
        self.up = up

    def owe(self, undo: Callable[[], Awaitable[object]], *, since: float, within_seconds: float) -> None:
        """Have something undone once the master can be asked again, because it failed just now.

        A master that hangs does, when it goes on, what it was asked to before: what has been given up by then.

        Args:
            undo: asks the master, and may raise `RedisError`: then it is tried again.
            since: when it may first have been asked for what is to be undone (monotonic seconds).
            within_seconds: after which it need not be undone any more.
        """
        if not self.up and self._down_since < since:
            return  # it was not asked at all
        now = time.monotonic()
        self._owed = [each for each in self._owed if each[0] > now]
        if len(self._owed) < _MOST_OWED:
            self._owed.append((now + within_seconds, undo))

    async def settle(self) -> None:
        """Undo what is owed, as far as the master can be asked."""
        while self._owed:
            until, undo = self._owed[0]
            if until > time.monotonic():
                try:
                    await undo()
                except RedisError:
                    return
            del self._owed[0]


class Masters:
    """All masters of the lock, and the task that watches each."""

    def __init__(self, masters: Sequence[Master], observer: MasterObserver) -> None:
        self.all = tuple(masters)
        self._observer = observer

    async def check(self) -> None:
        """Raise `UnavailableError` unless a majority of the masters is up."""
        down = [master.name for master in self.all if not master.up]
        if len(down) > len(self.all) // 2:
            raise UnavailableError(
                f"{len(down)} of {len(self.all)} masters do not answer: {', '.join(down)}", dependency="redis"
            )

    async def probe(self, master: Master) -> bool:
        """Ask the master itself, whatever is known of it, and remember the answer."""
        was_up = master.up
        master.found_down.clear()
        try:
            await master.call("PING")
        except RedisError as error:
            master.mark(up=False)
            if was_up:
                _log.warning("master is down", master=master.name, error=type(error).__name__)
        else:
            master.mark(up=True)
        self._observer.master_probed(master.name, master.up)
        return master.up

    async def sample_memory(self) -> None:
        """Ask each master how much memory it uses. One that is down, or does not tell, is passed over."""
        for master in self.all:
            with contextlib.suppress(RedisError):
                told = await master.info("memory")
                # A hosted Redis may leave out any of them.
                limit = int(told.get("maxmemory", 0)) or int(told.get("total_system_memory", 0))
                if limit and "used_memory" in told:
                    self._observer.master_memory(master.name, int(told["used_memory"]), limit)

    async def watch(self, master: Master) -> None:
        """Probe the master for ever; at once when a command found it down."""
        was_up = master.up
        while not being_cancelled():
            is_up = await self.probe(master)
            if is_up and not was_up:
                _log.info("master is up", master=master.name)
            was_up = is_up
            if is_up:
                await master.settle()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_INTERVAL_SECONDS):
                        await master.found_down.wait()
                        was_up = False
            else:
                await asyncio.sleep(_RECOVERY_INTERVAL_SECONDS)


def place_of(name: str, count: int) -> int:
    """Which of `count` masters a name belongs to, from 0: the same in every instance and at every start.

    Args:
        name: what is placed: a coupon's name, a key.
        count: how many masters there are, at least one.
    """
    return zlib.crc32(name.encode()) % count


def being_cancelled() -> bool:
    """Whether somebody wants the current task to end.

    redis-py loses a cancellation that reaches it while it connects, so a loop around it has to ask.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def open_masters(
    urls: Sequence[str],
    *,
    timeout_seconds: float,
    pool_size: int,
    observer: MasterObserver,
) -> AsyncIterator[Masters]:
    """Clients of the masters at `urls`, each probed once and then watched; closed on leaving.

    Args:
        urls: an odd number of independent masters.
        timeout_seconds: bound on connecting, on waiting for a free connection, and on each answer.
        pool_size: connections to each master.
        observer: told of every probe and call.
    """
    masters = Masters(
        [Master(url, timeout_seconds=timeout_seconds, pool_size=pool_size, observer=observer) for url in urls], observer
    )
    await asyncio.gather(*(masters.probe(master) for master in masters.all))
    watchers = [asyncio.create_task(masters.watch(master)) for master in masters.all]
    try:
        yield masters
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await asyncio.gather(*(master.aclose(close_connection_pool=True) for master in masters.all))
