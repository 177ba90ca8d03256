"""The pool of connections: SQLAlchemy's, with psycopg's errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from claimsvc.ports import StorageObserver
from claimsvc.postgres.connections import (
    Borrowed,
    Connect,
    ConnectionLimits,
    Driver,
    PoolTimedOutError,
    bounded,
    connection_options,
)


class Pool:
    """`ConnectionSource` that keeps connections open.

    Args:
        engine: SQLAlchemy's pool.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Borrowed]:
        try:
            async with self._engine.connect() as connection:
                driver: Driver = (await connection.get_raw_connection()).driver_connection  # type: ignore[assignment]
                yield Borrowed(driver, connection.invalidate)
        except SQLAlchemyError as error:
            # Not `from error`: its cause may be the very error that is raised, and the causes would form a circle.
            raise _error_of_driver(error) from None


@asynccontextmanager
async def open_pool(
    database_url: str,
    limits: ConnectionLimits,
    observer: StorageObserver,
    connect: Connect = psycopg.AsyncConnection.connect,
    *,
    name: str = "claims",
    is_for_reads: bool = False,
) -> AsyncIterator[Pool]:
    """Open a pool of connections, and close it on exit. It connects on first use.

    Args:
        database_url: the SQLAlchemy URL of the database.
        limits: of the pool and of each connection.
        observer: receives changes of the pool.
        connect: opens a connection.
        name: what `observer` knows the pool by.
        is_for_reads: whether each statement is planned for its values; see `connection_options`.
    """
    engine = create_async_engine(
        database_url,
        pool_size=limits.pool_size,
        max_overflow=0,
        pool_timeout=limits.pool_timeout_seconds,
        pool_use_lifo=True,
        # Units of work are single statements or pipelines with their own BEGIN; SQLAlchemy need not begin or end them.
        isolation_level="AUTOCOMMIT",
        connect_args={
            **connection_options(limits, is_for_reads=is_for_reads),
            "async_creator_fn": bounded(connect, limits),
        },
    )
    _watch(engine, name, observer)
    try:
        yield Pool(engine)
    finally:
        await engine.dispose()


def _error_of_driver(error: SQLAlchemyError) -> psycopg.Error:
    if isinstance(error, PoolTimeoutError):
        return PoolTimedOutError("every connection of the pool is in use")
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        return error.orig
    return psycopg.OperationalError(str(error))


def _watch(engine: AsyncEngine, name: str, observer: StorageObserver) -> None:
    """Report each connection that is opened, checked out, returned or closed."""
    pool = engine.sync_engine.pool

    def change(idle: int, in_use: int) -> None:
        observer.pool_changed(name, "idle", idle)
        observer.pool_changed(name, "in_use", in_use)

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
