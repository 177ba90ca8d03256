"""Connections to PostgreSQL, and units of work on them, with a time limit on everything that can hang."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from claimsvc.errors import UnavailableError
from claimsvc.postgres.troubles import trouble_of

# Every statement finds its rows by an index. A plan made for a small table must stay good when the table has grown, and
# planning again for each claim would cost too much.
_PLAN_OPTIONS = ["-c plan_cache_mode=force_generic_plan", "-c enable_seqscan=off", "-c jit=off"]
# Lists and searches: which index is right depends on what is searched for, and planning costs less than the wrong one.
# One process for each: more of them would take the CPUs from claims.
_READ_PLAN_OPTIONS = [
    "-c plan_cache_mode=force_custom_plan",
    "-c enable_seqscan=off",
    "-c jit=off",
    "-c max_parallel_workers_per_gather=0",
]
# Independent of the server's time zone: in others, Python cannot represent the first and last times of its calendar.
_ZONE_OPTIONS = ["-c timezone=UTC"]

Driver = psycopg.AsyncConnection[tuple[Any, ...]]
"""A connection as psycopg has it. Each statement is a transaction, unless BEGIN is sent."""
Connect = Callable[..., Awaitable[Driver]]
"""Opens a connection; has the signature of `psycopg.AsyncConnection.connect`."""


class PoolTimedOutError(psycopg.OperationalError):
    """No connection of the pool became free in time."""


database_failures = (psycopg.Error,)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the pool and of each connection, in connections and seconds."""

    pool_size: int
    pool_timeout_seconds: float
    connect_timeout_seconds: int
    statement_timeout_seconds: float
    lock_timeout_seconds: float
    idle_in_transaction_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A connection, and how to have it closed rather than used again."""

    driver: Driver
    discard: Callable[[], Awaitable[None]]


class ConnectionSource(Protocol):
    """Lends connections."""

    def borrow(self) -> AbstractAsyncContextManager[Borrowed]:
        """Lend a connection until the context is left.

        Raises:
            psycopg.Error: there is none.
        """
        ...


class SingleConnection:
    """A source that keeps one connection, for commands: they run one unit of work after another.

    Units of work that overlap get connections of their own.

    Args:
        database_url: the database.
        limits: of each connection.
    """

    def __init__(self, database_url: str, limits: ConnectionLimits) -> None:
        # libpq does not know SQLAlchemy's name of the driver.
        self._database_url = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._limits = limits
        self._idle: Driver | None = None

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Borrowed]:
        driver, self._idle = self._idle, None
        if driver is None:
            connect = bounded(psycopg.AsyncConnection.connect, self._limits)
            driver = await connect(self._database_url, **connection_options(self._limits))
        try:
            yield Borrowed(driver, driver.close)
        finally:
            # One whose transaction was left open is not used again.
            is_idle = not driver.closed and driver.info.transaction_status == TransactionStatus.IDLE
            if is_idle and self._idle is None:
                self._idle = driver
            else:
                await driver.close()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._idle is not None:
            await self._idle.close()


def connection_options(limits: ConnectionLimits, *, is_for_reads: bool = False) -> dict[str, Any]:
    """The options of a connection, as psycopg takes them.

    Args:
        limits: of the connection.
        is_for_reads: plan each statement for its values, in place of once for all values.
    """
    plans = _READ_PLAN_OPTIONS if is_for_reads else _PLAN_OPTIONS
    settings = {
        "statement_timeout": limits.statement_timeout_seconds,
        "lock_timeout": limits.lock_timeout_seconds,
        # If a process is paused inside a transaction, the server ends the transaction, so that others can proceed.
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_timeout_seconds,
    }
    timeouts = [f"-c {name}={int(seconds * 1000)}" for name, seconds in settings.items()]
    return {
        "connect_timeout": limits.connect_timeout_seconds,
        "application_name": "claimsvc",
        "options": " ".join(timeouts + plans + _ZONE_OPTIONS),
        # The kernel detects a peer that vanished within this time, in milliseconds.
        "tcp_user_timeout": int((limits.statement_timeout_seconds + limits.connect_timeout_seconds) * 1000),
        "prepare_threshold": 0,
    }


def bounded(connect: Connect, limits: ConnectionLimits) -> Connect:
    """Wrap `connect` so that it sets up the session as `_set_up` says, within the limit of connecting."""

    async def connect_bounded(*args: Any, **options: Any) -> Driver:
        driver = await connect(*args, **options)
        try:
            await driver.set_autocommit(True)
            # After the handshake no other limit applies.
            watchdog = asyncio.get_running_loop().call_later(limits.connect_timeout_seconds, _sever, driver)
            try:
                await driver.execute(_set_up(driver.info.server_version, limits), prepare=False)
            finally:
                watchdog.cancel()
        except BaseException:
            await driver.close()
            raise
        return driver

    return connect_bounded


def _set_up(version: int, limits: ConnectionLimits) -> bytes:
    """What a session begins with: settings that not every version has, or that not every role may change.

    - The server also ends a transaction whose pipeline stalls because this process is paused. Until the end of a
      pipeline, it does not count as idle, so its limit on idle transactions does not apply. Since PostgreSQL 17.
    - The server's log repeats the key or the row of a refused row as the error's detail: it would name users, and keep
      the names when they are forgotten. A role that may not leave the details out is found by `claimsvc doctor`.
    """
    may_set = (
        "has_parameter_privilege('log_error_verbosity', 'SET')"
        if version >= 150_000
        else "current_setting('is_superuser')::boolean"
    )
    settings = [f"CASE WHEN {may_set} THEN set_config('log_error_verbosity', 'terse', false) END"]
    if version >= 170_000:
        milliseconds = int(limits.idle_in_transaction_timeout_seconds * 1000)
        settings.append(f"set_config('transaction_timeout', '{milliseconds}', false)")
    return f"SELECT {', '.join(settings)}".encode()


@asynccontextmanager
async def unit_of_work(source: ConnectionSource, timeout_seconds: float) -> AsyncIterator[Driver]:
    """Borrow a connection for one statement or one pipeline, each a transaction by itself.

    Args:
        source: the pool.
        timeout_seconds: when the connection is cut. This is longer than the server's statement timeout, and covers a
            server that is frozen.
    """
    watchdog: asyncio.TimerHandle | None = None
    try:
        async with source.borrow() as borrowed:
            driver = borrowed.driver
            watchdog = asyncio.get_running_loop().call_later(timeout_seconds, _sever, driver)
            try:
                yield driver
            finally:
                if driver.closed or _is_in_mid_conversation(driver):
                    await borrowed.discard()
    finally:
        # Only after the connection was returned: returning it may send a ROLLBACK, and wait for the response.
        if watchdog is not None:
            watchdog.cancel()


_T = TypeVar("_T")


async def read(source: ConnectionSource, timeout_seconds: float, query: Callable[[Driver], Awaitable[_T]]) -> _T:
    """Run `query` in a unit of work and return its result. It must only read, because it may run several times.

    After a restart of PostgreSQL, all idle connections in the pool are dead, and fail immediately. The query is then
    repeated on the next connection, until one is alive.

    Args:
        source: the pool.
        timeout_seconds: the limit of each unit of work, and of starting another one.
        query: reads on the connection.

    Raises:
        UnavailableError: the database does not answer in time.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_seconds
    while True:
        driver: Driver | None = None
        try:
            async with unit_of_work(source, timeout_seconds) as driver:
                return await query(driver)
        except database_failures as error:
            # If our watchdog cut the connection, it is too late for another attempt.
            if driver is None or not driver.closed or clock() >= until:
                raise unavailable(error) from error


def _is_in_mid_conversation(driver: Driver) -> bool:
    """Whether a cancellation left the connection in a pipeline or awaiting responses, so that it cannot be reused."""
    return driver.pgconn.pipeline_status != PipelineStatus.OFF or driver.info.transaction_status in {
        TransactionStatus.ACTIVE,
        TransactionStatus.UNKNOWN,
    }


def unavailable(error: Exception) -> UnavailableError:
    """Return the error for callers. The database's message is for operators alone."""
    if isinstance(error, PoolTimedOutError):
        return UnavailableError("every connection to PostgreSQL is in use", dependency="postgresql")
    return UnavailableError("PostgreSQL is unavailable", dependency="postgresql", trouble=trouble_of(error))


def _sever(driver: Driver) -> None:
    """Shut down our side of the connection, so that an await on the server's response fails immediately.

    Cancelling the await is not enough: psycopg then asks the server to cancel, and waits for its response, which a
    frozen server never sends.
    """
    if not driver.closed:
        with socket.socket(fileno=os.dup(driver.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)
