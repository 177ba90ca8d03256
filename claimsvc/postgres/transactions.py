"""Running transactions, and resolving uncertain commits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.postgres.connections import ConnectionSource, Driver, database_failures, unavailable, unit_of_work

_RESOLVE_PAUSE_SECONDS = 0.1
# More restarts than two conflicting transactions ever need.
_MOST_STARTS = 4

_T = TypeVar("_T")


class RestartTransactionError(Exception):
    """Nothing was written; run the transaction again, which will take another path."""


async def run_transaction(
    source: ConnectionSource, unit_timeout_seconds: float, work: Callable[[Driver, bool], Awaitable[_T]]
) -> _T:
    """Run `work` in a transaction and return its result.

    When the connection is lost, the commit may or may not have happened. `work` then runs again on another connection,
    with `in_doubt` true. It must be safe to repeat: it finds what it wrote before and recognizes it as its own.

    Args:
        source: where connections come from.
        unit_timeout_seconds: see `unit_of_work`; also how long an uncertain commit is resolved by reading.
        work: runs one transaction on a connection, from BEGIN to COMMIT; its second argument is `in_doubt`.

    Raises:
        psycopg.IntegrityError, psycopg.DataError: a row was refused; nothing was written.
        UnavailableError: nothing was written, or it is unknown whether it was.
        InvariantViolatedError: a check in SQL failed; nothing was written.
    """
    clock = asyncio.get_running_loop().time
    backend: int | None = None
    started_at = clock()
    in_doubt_until: float | None = None
    starts = 0
    while True:
        driver: Driver | None = None
        try:
            async with unit_of_work(source, unit_timeout_seconds) as driver:
                if in_doubt_until is not None and backend is not None:
                    await _end(driver, backend, clock() - started_at)
                backend, started_at = driver.info.backend_pid, clock()
                return await work(driver, in_doubt_until is not None)
        except RestartTransactionError as error:
            starts += 1
            if starts == _MOST_STARTS:
                raise UnavailableError("too many conflicting requests; try again", dependency="postgresql") from error
            continue
        except psycopg.errors.DivisionByZero as error:
            raise InvariantViolatedError("a check of the written rows failed; it was rolled back") from error
        except (psycopg.IntegrityError, psycopg.DataError):
            raise
        except database_failures as error:
            if in_doubt_until is None:
                if driver is None or not driver.closed:
                    raise unavailable(error) from error
                # Usually a connection that had died while it was idle in the pool.
                in_doubt_until = clock() + unit_timeout_seconds
                continue
            if clock() >= in_doubt_until:
                raise UnavailableError(
                    "PostgreSQL did not confirm the commit; try again to learn the result", dependency="postgresql"
                ) from error
        await asyncio.sleep(_RESOLVE_PAUSE_SECONDS)


# The process id may have been reused, or belong to a session on a promoted standby; such a session is younger.
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %(backend)s AND usename = current_user
    AND backend_start <= clock_timestamp() - make_interval(secs => %(age)s)
"""


async def _end(driver: Driver, backend: int, age_seconds: float) -> None:
    """Terminate the session of a lost connection.

    A server that hangs may still have unread statements of it, which must not run after the work was decided again.

    Args:
        driver: another connection.
        backend: the process id of the session.
        age_seconds: the minimum age of the session.
    """
    await driver.execute(_END, {"backend": backend, "age": age_seconds}, prepare=False)
