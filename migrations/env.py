"""Runs the migrations on an async engine, one process at a time."""

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from claimsvc.errors import UnavailableError
from claimsvc.postgres.tables import metadata

# Any constant will do, so long as nothing else in this database locks on it: "claimsvc" in ASCII.
_MIGRATION_LOCK = 0x636C61696D737663


# How long to wait for another instance's migration, and for a table that somebody uses. While a change of a table waits
# for its lock, every claim waits behind it, so that wait is short: whoever migrates tries again at a quieter moment.
_MIGRATION_LOCK_TIMEOUT_SECONDS = 60.0
_MIGRATION_LOCK_PAUSE_SECONDS = 0.1
_TABLE_LOCK_TIMEOUT = "5s"


def _take_migration_lock(connection: Connection) -> None:
    """Wait for it between transactions: an index that is built meanwhile waits for every transaction to end."""
    until = time.monotonic() + _MIGRATION_LOCK_TIMEOUT_SECONDS
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATION_LOCK}).scalar():
        connection.commit()
        if time.monotonic() >= until:
            raise UnavailableError(
                "another process has been migrating the database all the while", dependency="postgresql"
            )
        time.sleep(_MIGRATION_LOCK_PAUSE_SECONDS)


def _run(connection: Connection) -> None:
    # Several instances start at once: the first migrates, the others wait here and then find nothing left to do.
    _take_migration_lock(connection)
    connection.execute(text(f"SET lock_timeout = '{_TABLE_LOCK_TIMEOUT}'"))
    connection.commit()
    try:
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()


async def _run_online() -> None:
    engine = create_async_engine(
        context.config.attributes["database_url"],
        poolclass=pool.NullPool,
        connect_args={"connect_timeout": 5, "application_name": "claimsvc-migrate"},
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run)
    finally:
        await engine.dispose()


asyncio.run(_run_online())
