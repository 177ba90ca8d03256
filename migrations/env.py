"""Runs the migrations on an async engine, one process at a time."""

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from claimsvc.errors import UnavailableError
from claimsvc.postgres.tables import metadata

# The key of the advisory lock: "claimsvc" in ASCII. Nothing else in this database may use it.
_MIGRATION_LOCK = 0x636C61696D737663


# How long to wait for another process's migration, and for a table that is in use. While a change waits for its table's
# lock, all claims wait behind it, so the second wait is short: run the migration again when there is less load.
_MIGRATION_LOCK_TIMEOUT_SECONDS = 60.0
_MIGRATION_LOCK_PAUSE_SECONDS = 0.1
_TABLE_LOCK_TIMEOUT = "5s"


def _take_migration_lock(connection: Connection) -> None:
    """Take the lock, polling between transactions: CREATE INDEX CONCURRENTLY waits for all open transactions to end."""
    until = time.monotonic() + _MIGRATION_LOCK_TIMEOUT_SECONDS
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATION_LOCK}).scalar():
        connection.commit()
        if time.monotonic() >= until:
            raise UnavailableError(
                "another process is migrating the database and did not finish in time", dependency="postgresql"
            )
        time.sleep(_MIGRATION_LOCK_PAUSE_SECONDS)


def _run(connection: Connection) -> None:
    # If several processes start at once, the first migrates; the others wait here and then find nothing to do.
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
