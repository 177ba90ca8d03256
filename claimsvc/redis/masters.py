"""Clients of the Redis masters, with a health check: once a master is known to be down, claims do not wait for it."""

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import hiredis
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from claimsvc.background import in_background
from claimsvc.errors import Trouble, UnavailableError
from claimsvc.ports import MasterObserver
from claimsvc.redis.troubles import trouble_of
from claimsvc.redis.wire import Wire

_log = structlog.get_logger("claimsvc.masters")

_WATCH_INTERVAL_SECONDS = 1.0
_RECOVERY_INTERVAL_SECONDS = 0.2
# What goes by the wire. Not the SET by which pottery takes a lock: with it, two workers were not faster.
_BY_WIRE = frozenset({"EVALSHA", "EVAL"})
# A server that still loads its data is taken for one that is down, as redis-py has it.
_REFUSALS: Mapping[str, type[RedisError]] = {"NOSCRIPT": NoScriptError, "LOADING": BusyLoadingError}
# More than the commands that can be in flight when a master fails.
_MOST_PENDING_UNDOS = 1000


class MasterDownError(RedisConnectionError):
    """An earlier command found the master down, and it has not answered since."""


class Client(Redis):
    """A client that raises `RedisError` for every lost connection, whichever event loop is used."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            # uvloop raises this when a connection was reset just before a write, and redis-py does not convert it.
            if "the handler is closed" not in str(error):
                raise
            raise RedisConnectionError("the connection was lost") from error


AroundCommand = Callable[[str], AbstractContextManager[object]]


class Master(Client):
    """A client of one master that fails immediately while the master is known to be down.

    Otherwise a hanging master would delay every lock by its timeout, twice.

    Args:
        url: of the master.
        timeout_seconds: bound on connecting, on waiting for a free connection, and on each answer.
        pool_size: most connections.
        observer: receives the duration of every call.
    """

    def __init__(self, url: str, *, timeout_seconds: float, pool_size: int, observer: MasterObserver) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=pool_size,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # redis-py would retry ten times. The lock decides whether to retry.
            retry=Retry(NoBackoff(), 0),
            client_name="claimsvc",
        )
        super().__init__(connection_pool=pool)
        self.url = url
        where = pool.connection_kwargs
        self.name = f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
        self.up = True
        self.trouble: Trouble | None = None
        # Scripts go by it while it is open: by redis-py, each costs as much as several claims.
        self.wire = Wire(self)
        self._timeout_seconds = timeout_seconds
        self._observer = observer
        self.found_down = asyncio.Event()
        self._down_since = 0.0
        self._pending_undos: list[_Undo] = []
        self._around_command: AroundCommand | None = None

    def surround_commands(self, around_command: AroundCommand) -> None:
        """Run every command within the context that `around_command` returns for its name."""
        self._around_command = around_command

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self._around_command is None:
            return await self._execute(*args, **options)
        with self._around_command(str(args[0])):
            return await self._execute(*args, **options)

    async def _execute(self, *args: Any, **options: Any) -> Any:
        if not self.up:
            raise MasterDownError(f"{self.name} is down")
        try:
            return await self.call(*args, **options)
        except (RedisConnectionError, RedisTimeoutError):
            # An exhausted pool raises the same error, so `watch` probes the master immediately.
            self.mark(up=False)
            self.found_down.set()
            raise

    async def call(self, *args: Any, **options: Any) -> Any:
        """Send a command even if the master is known to be down."""
        started = time.monotonic()
        try:
            if args[0] in _BY_WIRE and (reply := self._sent_by_wire(args)) is not None:
                return await self._reply_of(reply)
            return await super().execute_command(*args, **options)
        finally:
            self._observer.master_called(self.name, time.monotonic() - started)

    def _sent_by_wire(self, words: Sequence[Any]) -> "asyncio.Future[Any] | None":
        """Send a command by the wire. None if that is not open; then nothing was sent."""
        try:
            return self.wire.send(*words) if self.wire.is_open else None
        except (RedisConnectionError, RuntimeError):
            return None  # it is lost just now; uvloop has an error of its own for that

    async def _reply_of(self, reply: "asyncio.Future[Any]") -> Any:
        """Wait for a reply as long as redis-py would, and raise what redis-py would."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await reply
        except TimeoutError as error:
            self.wire.give_up()
            raise RedisTimeoutError(f"{self.name} did not answer in time") from error
        except hiredis.ReplyError as error:
            raise _REFUSALS.get(str(error).partition(" ")[0], ResponseError)(str(error)) from error

    def mark(self, *, up: bool) -> None:
        """Record whether the master answers."""
        if self.up and not up:
            self._down_since = time.monotonic()
        self.up = up

    def undo_later(self, undo: Callable[[], Awaitable[object]], *, since: float, within_seconds: float) -> None:
        """Call `undo` once the master answers again, because the undo has just failed.

        A master that hung executes the commands it had received when it resumes, including abandoned ones.

        Args:
            undo: sends the undo to the master. Called again later if it raises `RedisError`.
            since: when the command to be undone was sent at the earliest (monotonic seconds).
            within_seconds: so long after the command was executed the undo is no longer needed.
        """
        if not self.up and self._down_since < since:
            return  # the command was not sent
        if len(self._pending_undos) < _MOST_PENDING_UNDOS:
            self._pending_undos.append(_Undo(undo, within_seconds))

    async def run_pending_undos(self) -> None:
        """Run the pending undos, after the master has answered. Those that fail stay, if they are needed later."""
        undos, self._pending_undos = self._pending_undos, []
        while undos:
            undo = undos.pop(0)
            try:
                await undo.run()
            except (RedisConnectionError, RedisTimeoutError):
                self._pending_undos += [undo, *undos]
                return
            except RedisError:  # the master answers, but takes no writes
                if undo.is_needed(time.monotonic()):
                    self._pending_undos.append(undo)


@dataclass(slots=True)
class _Undo:
    """What a master is yet to be asked for; see `Master.undo_later`."""

    run: Callable[[], Awaitable[object]]
    _within_seconds: float
    _until: float | None = None

    def is_needed(self, answered: float) -> bool:
        """Whether it is needed after the master has answered. Its hanging before that does not count."""
        if self._until is None:
            self._until = answered + self._within_seconds
        return answered < self._until


class Masters:
    """All masters of the lock, and their health checks."""

    def __init__(self, masters: Sequence[Master], observer: MasterObserver) -> None:
        self.all = tuple(masters)
        self._observer = observer

    async def check(self) -> None:
        """Raise `UnavailableError` unless a majority of the masters is up."""
        down = [master for master in self.all if not master.up]
        if len(down) > len(self.all) // 2:
            names = ", ".join(master.name for master in down)
            raise UnavailableError(
                f"{len(down)} of {len(self.all)} masters cannot be used: {names}",
                dependency="redis",
                trouble=_trouble_of_all(down),
            )

    async def probe(self, master: Master) -> bool:
        """Ping the master and record the result. Returns whether it answered."""
        was_up = master.up
        master.found_down.clear()
        try:
            await master.call("PING")
        except RedisError as error:
            master.mark(up=False)
            master.trouble = trouble_of(error)
            if was_up:
                error_name, why = type(error).__name__, str(master.trouble)
                _log.warning("master is down", master=master.name, error=error_name, why=why)
        else:
            master.mark(up=True)
            master.trouble = None
        self._observer.master_probed(master.name, master.up)
        return master.up

    async def sample_memory(self) -> None:
        """Report each master's memory use. Masters that are down or do not report it are skipped."""
        for master in self.all:
            with contextlib.suppress(RedisError):
                memory = await master.info("memory")
                # A hosted Redis may omit any of these fields.
                limit = int(memory.get("maxmemory", 0)) or int(memory.get("total_system_memory", 0))
                if limit and "used_memory" in memory:
                    self._observer.master_memory(master.name, int(memory["used_memory"]), limit)

    async def watch(self, master: Master) -> None:
        """Probe the master until cancelled: every second, and immediately when a command found it down."""
        was_up = master.up
        while True:
            is_up = await self.probe(master)
            if is_up and not was_up:
                _log.info("master is up", master=master.name)
            was_up = is_up
            if is_up:
                await master.run_pending_undos()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_INTERVAL_SECONDS):
                        await master.found_down.wait()
                        was_up = False
            else:
                await asyncio.sleep(_RECOVERY_INTERVAL_SECONDS)


def _trouble_of_all(down: Sequence[Master]) -> Trouble | None:
    """What is wrong with each of them, and what to do."""
    troubles = {master.name: master.trouble for master in down if master.trouble is not None}
    if not troubles:
        return None
    found = "; ".join(f"{name}: {trouble.found}" for name, trouble in troubles.items())
    return Trouble(found, "; ".join(dict.fromkeys(trouble.mend for trouble in troubles.values())))


def place_of(name: str, count: int) -> int:
    """Return the index of the master that a name belongs to. The same in every instance and after every restart.

    Args:
        name: a coupon's name or a key.
        count: number of masters, at least 1.
    """
    return zlib.crc32(name.encode()) % count


@asynccontextmanager
async def open_masters(
    urls: Sequence[str],
    *,
    timeout_seconds: float,
    pool_size: int,
    observer: MasterObserver,
) -> AsyncIterator[Masters]:
    """Open clients of the masters, probe each once, and watch them until the context is left.

    Args:
        urls: an odd number of independent masters.
        timeout_seconds: bound on connecting, on waiting for a free connection, and on each answer.
        pool_size: most connections to each master.
        observer: receives every probe and the duration of every call.
    """
    masters = Masters(
        [Master(url, timeout_seconds=timeout_seconds, pool_size=pool_size, observer=observer) for url in urls], observer
    )
    await asyncio.gather(*(masters.probe(master) for master in masters.all))
    try:
        watches = (masters.watch(master) for master in masters.all)
        async with in_background(*watches, *(master.wire.run() for master in masters.all)):
            yield masters
    finally:
        await asyncio.gather(*(master.aclose(close_connection_pool=True) for master in masters.all))
