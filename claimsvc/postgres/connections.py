"""The connection pool, and units of work on it, with a bound on everything that can hang."""

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

# Every statement here finds its rows by an index. A plan made while a table was small must stay right when it has
# grown, and is not worth making anew for each claim.
_PLAN_OPTIONS = ["-c plan_cache_mode=force_generic_plan", "-c enable_seqscan=off", "-c jit=off"]
# Whatever the server's own zone: east or west of it, the first and the last times that Python knows cannot be read.
_ZONE_OPTIONS = ["-c timezone=UTC"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds of the pool and of each connection, in connections and seconds."""

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
    """Open a pool of connections, which is closed on leaving. It connects when it is first used.

    Args:
        database_url: of PostgreSQL.
        limits: of the pool and of each connection.
        observer: receives changes of the pool.
        connect: opens a connection as psycopg does.
    """
    options = {
        "statement_timeout": limits.statement_timeout_seconds,
        "lock_timeout": limits.lock_timeout_seconds,
        # The database ends the transaction of a process that was paused inside it, so that others can go on.
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_timeout_seconds,
    }
    engine = create_async_engine(
        database_url,
        pool_size=limits.pool_size,
        max_overflow=0,
        pool_timeout=limits.pool_timeout_seconds,
        pool_use_lifo=True,
        # Every unit of work is one statement, or one pipeline: neither needs round trips for its begin and its end.
        isolation_level="AUTOCOMMIT",
        connect_args={
            "connect_timeout": limits.connect_timeout_seconds,
            "application_name": "claimsvc",
            "options": " ".join(
                [f"-c {name}={int(seconds * 1000)}" for name, seconds in options.items()]
                + _PLAN_OPTIONS
                + _ZONE_OPTIONS
            ),
            # A peer that vanished without a word is noticed by the kernel within this time, in milliseconds.
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
    """Have the server end a transaction in whose pipeline the next message does not come, because we were stopped.

    Before the pipeline's end the server does not call itself idle, and its limit on idle transactions does not apply.
    This one can only be set once it is known that the server has it: version 17 is the first.
    """
    driver: Driver = connection.driver_connection
    if driver.info.server_version < 170_000:
        return
    # It still belongs to connecting, which nothing else bounds once the server has said hello.
    watchdog = asyncio.get_running_loop().call_later(limits.connect_timeout_seconds, _sever, driver)
    try:
        cursor = connection.cursor()
        cursor.execute(f"SET transaction_timeout = {int(limits.idle_in_transaction_timeout_seconds * 1000)}")
        cursor.close()
        connection.commit()
    finally:
        watchdog.cancel()


def _watch(engine: AsyncEngine, observer: StorageObserver) -> None:
    """Tell the observer of each connection that is opened, lent, returned or closed."""
    pool = engine.sync_engine.pool

    def change(idle: int, in_use: int) -> None:
        observer.pool_changed("idle", idle)
        observer.pool_changed("in_use", in_use)

    def lent(_: Any, record: Any, __: Any) -> None:
        record.record_info["lent"] = True
        change(-1, +1)

    def returned(_: Any, record: Any) -> None:
        # A connection that could not even be opened is "returned" too, without having been lent.
        if record.record_info.pop("lent", False):
            change(+1, -1)

    def abandoned(_: Any, record: Any) -> None:
        # Its borrower is gone without a word: cancelled even where it gave it back. It is closed, and not returned.
        if record.record_info.pop("lent", False):
            change(0, -1)

    event.listen(pool, "connect", lambda *_: change(+1, 0))
    event.listen(pool, "checkout", lent)
    event.listen(pool, "checkin", returned)
    event.listen(pool, "detach", abandoned)
    event.listen(pool, "close", lambda *_: change(-1, 0))


Driver = psycopg.AsyncConnection[tuple[Any, ...]]
"""A connection of the pool, as psycopg has it."""

database_failures = (psycopg.Error, SQLAlchemyError)


@asynccontextmanager
async def unit_of_work(engine: AsyncEngine, timeout_seconds: float) -> AsyncIterator[Driver]:
    """A connection for one statement, or one pipeline of them, which is a transaction by itself.

    Args:
        timeout_seconds: when the unit is cut off. It is longer than the server's own statement time-out, and ends
            what that cannot: a server that is frozen.
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
        # Not before the connection is given back: that may say ROLLBACK, and waits for the answer.
        if watchdog is not None:
            watchdog.cancel()


_T = TypeVar("_T")


async def read(engine: AsyncEngine, timeout_seconds: float, ask: Callable[[Driver], Awaitable[_T]]) -> _T:
    """What `ask` learns in a unit of work, which must only read.

    When PostgreSQL was restarted, every connection that lies idle in the pool is dead, and whoever is lent one is told
    so at once. Reading may be begun anew, so that the next connection is tried instead, until one is alive.

    Raises:
        UnavailableError: it could not be learnt.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_seconds
    while True:
        driver: Driver | None = None
        try:
            async with unit_of_work(engine, timeout_seconds) as driver:
                return await ask(driver)
        except database_failures as error:
            # One that our own watchdog has cut off comes too late for another try.
            if driver is None or not driver.closed or clock() >= until:
                raise unavailable(error) from error


def _is_in_mid_conversation(driver: Driver) -> bool:
    """Whether a cancellation has left it in a pipeline, or with answers to come: whoever got it next would fail."""
    return driver.pgconn.pipeline_status != PipelineStatus.OFF or driver.info.transaction_status in {
        TransactionStatus.ACTIVE,
        TransactionStatus.UNKNOWN,
    }


def unavailable(error: Exception) -> UnavailableError:
    """What to tell the caller. The database's own words stay in the error's cause, for the log."""
    if isinstance(error, PoolTimeoutError):
        return UnavailableError("every connection to PostgreSQL is in use", dependency="postgresql")
    return UnavailableError("PostgreSQL cannot be used at the moment", dependency="postgresql")


def _sever(driver: Driver) -> None:
    """End the conversation at our side: whoever awaits the server's answer gets an error at once.

    Cancelling the await would not do: psycopg then asks the server to cancel and waits for its answer, which a frozen
    server never gives.
    """
    if not driver.closed:
        with socket.socket(fileno=os.dup(driver.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)
