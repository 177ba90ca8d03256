"""Facts about a PostgreSQL server, from which `doctor` judges whether claims are safe and fast on it."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import dict_row

from claimsvc.errors import UnavailableError
from claimsvc.postgres.connections import ConnectionSource, Driver, database_failures, unit_of_work
from claimsvc.postgres.migrations import newest_revision
from claimsvc.postgres.troubles import trouble_of

_SAMPLES = 5

_SETTINGS = """
SELECT
    current_setting('server_version_num')::int AS version_number,
    split_part(current_setting('server_version'), ' ', 1) AS version,
    pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only')::boolean AS is_read_only,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('fsync')::boolean AS fsync,
    current_setting('full_page_writes')::boolean AS full_page_writes,
    current_setting('log_error_verbosity') AS log_error_verbosity,
    CASE
        WHEN rolsuper THEN current_setting('max_connections')::int
        ELSE least(
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0),
            nullif(rolconnlimit, -1),
            nullif(datconnlimit, -1)
        )
    END AS most_connections,
    to_regclass('alembic_version') IS NOT NULL AS has_revision,
    to_regclass('coupons') IS NULL OR to_regclass('coupons_name_trgm_idx') IS NOT NULL AS has_search_index
FROM pg_roles CROSS JOIN pg_database
WHERE rolname = current_user AND datname = current_database()
"""
_CLOCK = "SELECT clock_timestamp()"
_REVISION = "SELECT max(version_num) FROM alembic_version"


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A PostgreSQL server as the service's database user sees it.

    Args:
        version_number: such as 170002.
        version: such as `17.2`.
        answer_seconds: the median round trip.
        clock_ahead_seconds: how far its clock is ahead of this machine's.
        is_standby: whether it is in recovery.
        is_read_only: whether transactions are read-only by default.
        synchronous_commit: the setting.
        fsync: the setting.
        full_page_writes: the setting.
        log_error_verbosity: of this session, which has set it to `terse` if it may.
        most_connections: how many connections this user can have, those of other programs included.
        revision: of the schema; empty without a schema.
        newest_revision: the schema revision that this version of the service was written for.
        has_search_index: whether there is the index for searches; true without a schema.
    """

    version_number: int
    version: str
    answer_seconds: float
    clock_ahead_seconds: float
    is_standby: bool
    is_read_only: bool
    synchronous_commit: str
    fsync: bool
    full_page_writes: bool
    log_error_verbosity: str
    most_connections: int
    revision: str
    newest_revision: str
    has_search_index: bool


async def read_facts(source: ConnectionSource, *, timeout_seconds: float) -> DatabaseFacts:
    """Read the facts.

    Args:
        source: where connections come from.
        timeout_seconds: see `unit_of_work`.

    Raises:
        UnavailableError: the server cannot be queried; its `trouble` says why.
    """
    try:
        async with unit_of_work(source, timeout_seconds) as driver:
            [settings] = await (await driver.cursor(row_factory=dict_row).execute(_SETTINGS)).fetchall()
            answer_seconds, clock_ahead_seconds = await _clock(driver)
            revision = await _value(driver, _REVISION) if settings.pop("has_revision") else None
    except database_failures as error:
        raise UnavailableError("it cannot be queried", dependency="postgresql", trouble=trouble_of(error)) from error
    return DatabaseFacts(
        answer_seconds=answer_seconds,
        clock_ahead_seconds=clock_ahead_seconds,
        revision=revision or "",
        newest_revision=newest_revision(),
        **settings,
    )


async def _clock(driver: Driver) -> tuple[float, float]:
    """Return the median round trip, and the clock difference by the fastest round trip, which is the most accurate."""
    samples: list[tuple[float, float]] = []
    for _ in range(_SAMPLES):
        sent_at, started = time.time(), time.perf_counter()
        now: datetime = await _value(driver, _CLOCK)
        seconds = time.perf_counter() - started
        samples.append((seconds, now.timestamp() - sent_at - seconds / 2))
    samples.sort()
    return samples[len(samples) // 2][0], samples[0][1]


async def _value(driver: Driver, statement: LiteralString) -> Any:
    [(value,)] = await (await driver.execute(statement)).fetchall()
    return value
