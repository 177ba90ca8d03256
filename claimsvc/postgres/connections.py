"""The connection pool, and units of work on it, with a time limit on everything that can hang."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from claimsvc.errors import UnavailableError
from claimsvc.ports import StorageObserver

# Every statement finds its rows by an index. A plan made for a small table must stay good when the table has grown, and
# planning again for each claim would cost too much.
_PLAN_OPTIONS = ["-c plan_cache_mode=force_generic_plan", "-c enable_seqscan=off", "-c jit=off"]
# Independent of the server's time zone: in others, Python cannot represent the first and last times of its calendar.
_ZONE_OPTIONS = ["-c timezone=UTC"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of the pool and of each connection, in connections and seconds."""

    pool_size: int
    pool_timeout_seconds: float
    connect_timeout_seconds: int
    statement_timeout_seconds: float
    lock_timeout_seconds: float
    idle_in_transaction_timeout_seconds: float


@asynccontextmanager
async def open_engine(
    database_url: str,
    limits: EngineLimits,
    observer: StorageObserver,
    connect: Callable[..., Awaitable[psycopg.AsyncConnection[Any]]] = psycopg.AsyncConnection.connect,
) -> AsyncIterator[AsyncEngine]:
    """Open a pool of connections, and close it on exit. It connects on first use.

    Args:
        database_url: the SQLAlchemy URL of the database.
        limits: of the pool and of each connection.
        observer: receives changes of the pool.
        connect: opens a connection; has the signature of `psycopg.AsyncConnection.connect`.
    """
    options = {
        "statement_timeout": limits.statement_timeout_seconds,
        "lock_timeout": limits.lock_timeout_seconds,
        # If a process is paused inside a transaction, the server ends the transaction, so that others can proceed.
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_timeout_seconds,
    }
    engine = create_async_engine(
        database_url,
        pool_size=limits.pool_size,
        max_overflow=0,
        pool_timeout=limits.pool_timeout_seconds,
        pool_use_lifo=True,
        # Units of work are single statements or pipelines with their own BEGIN; SQLAlchemy need not begin or end them.
        isolation_level="AUTOCOMMIT",
        connect_args={
            "connect_timeout": limits.connect_timeout_seconds,
            "application_name": "claimsvc",
            "options": " ".join(
                [f"-c {name}={int(seconds * 1000)}" for name, seconds in options.items()]
                + _PLAN_OPTIONS
                + _ZONE_OPTIONS
            ),
            # The kernel detects a peer that vanished within this time, in milliseconds.
            "tcp_user_timeout": int((limits.statement_timeout_seconds + limits.connect_timeout_seconds) * 1000),
            "prepare_threshold": 0,
            "async_creator_fn": connect,
        },
    )
    event.listen(engine.sync_engine, "connect", partial(_bound_transactions, limits))
    _watch(engine, observer)
    try:
        yield engine
    finally:
        await engine.dispose()


def _bound_transactions(limits: EngineLimits, connection: Any, _: Any) -> None:
    """Limit each transaction, so that the server also ends one whose pipeline stalls because this process is paused.

    Until the end of a pipeline, the server does not count as idle, so its limit on idle transactions does not apply.
    The setting exists since PostgreSQL 17, so the version must be known before it is set.
    """
    driver: Driver = connection.driver_connection
    if driver.info.server_version < 170_000:
        return
    # This is part of connecting, and after the handshake no other limit applies.
    watchdog = asyncio.get_running_loop().call_later(limits.connect_timeout_seconds, _sever, driver)
    try:
        cursor = connection.cursor()
        cursor.execute(f"SET transaction_timeout = {int(limits.idle_in_transaction_timeout_seconds * 1000)}")
        cursor.close()
        connection.commit()
    finally:
        watchdog.cancel()


def _watch(engine: AsyncEngine, observer: StorageObserver) -> None:
    """Report each connection that is opened, checked out, returned or closed."""
    pool = engine.sync_engine.pool

    def change(idle: int, in_use: int) -> None:
        observer.pool_changed("idle", idle)
        observer.pool_changed("in_use", in_use)

    def lent(_: Any, record: Any, __: Any) -> None:
        record.record_info["lent"] = True
        change(-1, +1)

    def returned(_: Any, record: Any) -> None:
        # The pool also "returns" a connection that could not be opened, and so was never checked out.
        if record.record_info.pop("lent", False):
            change(+1, -1)

    def abandoned(_: Any, record: Any) -> None:
        # Its borrower was cancelled while returning it: the connection is closed instead.
        if record.record_info.pop("lent", False):
            change(0, -1)

    event.listen(pool, "connect", lambda *_: change(+1, 0))
    event.listen(pool, "checkout", lent)
    event.listen(pool, "checkin", returned)
    event.listen(pool, "detach", abandoned)
    event.listen(pool, "close", lambda *_: change(-1, 0))


Driver = psycopg.AsyncConnection[tuple[Any, ...]]
"""A psycopg connection from the pool."""

database_failures = (psycopg.Error, SQLAlchemyError)


@asynccontextmanager
async def unit_of_work(engine: AsyncEngine, timeout_seconds: float) -> AsyncIterator[Driver]:
    """Borrow a connection for one statement or one pipeline, each a transaction by itself.

    Args:
        engine: the pool.
        timeout_seconds: when the connection is cut. This is longer than the server's statement timeout, and covers a
            server that is frozen.
    """
    watchdog: asyncio.TimerHandle | None = None
    try:
        async with engine.connect() as connection:
            driver: Driver = (await connection.get_raw_connection()).driver_connection  # type: ignore[assignment]
            watchdog = asyncio.get_running_loop().call_later(timeout_seconds, _sever, driver)
            try:
                yield driver
            finally:
                if driver.closed or _is_in_mid_conversation(driver):
                    await connection.invalidate()
    finally:
        # Only after the connection was returned: returning it may send a ROLLBACK, and wait for the response.
        if watchdog is not None:
            watchdog.cancel()


_T = TypeVar("_T")


async def read(engine: AsyncEngine, timeout_seconds: float, query: Callable[[Driver], Awaitable[_T]]) -> _T:
    """Run `query` in a unit of work and return its result. It must only read, because it may run several times.

    After a restart of PostgreSQL, all idle connections in the pool are dead, and fail immediately. The query is then
    repeated on the next connection, until one is alive.

    Args:
        engine: the pool.
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
            async with unit_of_work(engine, timeout_seconds) as driver:
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
    """Return the error for callers. The database's message stays in the cause, for the log."""
    if isinstance(error, PoolTimeoutError):
        return UnavailableError("every connection to PostgreSQL is in use", dependency="postgresql")
    return UnavailableError("PostgreSQL is unavailable", dependency="postgresql")


def _sever(driver: Driver) -> None:
    """Shut down our side of the connection, so that an await on the server's response fails immediately.

    Cancelling the await is not enough: psycopg then asks the server to cancel, and waits for its response, which a
    frozen server never sends.
    """
    if not driver.closed:
        with socket.socket(fileno=os.dup(driver.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)
