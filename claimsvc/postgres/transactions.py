"""Run a transaction and always learn how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.postgres.connections import Driver, database_failures, unavailable, unit_of_work

_RESOLVE_PAUSE_SECONDS = 0.1
# More than two transactions ever need to get out of each other's way.
_MOST_BEGINNINGS = 4

_T = TypeVar("_T")


class RestartTransactionError(Exception):
    """Nothing was written; the transaction is to run again, and will take another path."""


async def run_transaction(
    engine: AsyncEngine, unit_timeout_seconds: float, work: Callable[[Driver, bool], Awaitable[_T]]
) -> _T:
    """Run `work` in a transaction and return its result.

    When the connection is lost, the commit may or may not have happened. `work` then runs again on another connection,
    with `in_doubt` true. It must be safe to repeat: it finds what it wrote before and recognizes it as its own.

    Args:
        engine: where connections come from.
        unit_timeout_seconds: see `unit_of_work`; also how long an uncertain commit is resolved by reading.
        work: runs one transaction on the driver's connection, given `in_doubt`.

    Raises:
        psycopg.IntegrityError, psycopg.DataError: a row was refused; nothing was written.
        UnavailableError: nothing was written, or it could not be found out.
        InvariantViolatedError: nothing was written, because a promise would have been broken.
    """
    clock = asyncio.get_running_loop().time
    backend: int | None = None
    begun_at = clock()
    in_doubt_until: float | None = None
    beginnings = 0
    while True:
        driver: Driver | None = None
        try:
            async with unit_of_work(engine, unit_timeout_seconds) as driver:
                if in_doubt_until is not None and backend is not None:
                    await _end(driver, backend, clock() - begun_at)
                backend, begun_at = driver.info.backend_pid, clock()
                return await work(driver, in_doubt_until is not None)
        except RestartTransactionError as error:
            beginnings += 1
            if beginnings == _MOST_BEGINNINGS:
                raise UnavailableError("others were always quicker; ask again", dependency="postgresql") from error
            continue
        except psycopg.errors.DivisionByZero as error:
            raise InvariantViolatedError("what was written did not add up, and was not kept") from error
        except (psycopg.IntegrityError, psycopg.DataError):
            raise
        except database_failures as error:
            if in_doubt_until is None:
                if driver is None or not driver.closed:
                    raise unavailable(error) from error
                # The usual case: the pool lent us a connection that had died while it lay idle.
                in_doubt_until = clock() + unit_timeout_seconds
                continue
            if clock() >= in_doubt_until:
                raise UnavailableError(
                    "PostgreSQL did not say whether it was kept; ask again to learn it", dependency="postgresql"
                ) from error
        await asyncio.sleep(_RESOLVE_PAUSE_SECONDS)


# Its number may be another session's by now, or that of a session of the standby that took over: those are younger.
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %(backend)s AND usename = current_user
    AND backend_start <= clock_timestamp() - make_interval(secs => %(age)s)
"""


async def _end(driver: Driver, backend: int, age_seconds: float) -> None:
    """End the session of a connection that was lost. What it was sent may lie unread in a server that hangs: it is not
    to be carried out when all was decided again, and something else was made of it.

    Args:
        age_seconds: how long ago that session was lent at the latest.
    """
    await driver.execute(_END, {"backend": backend, "age": age_seconds}, prepare=False)
