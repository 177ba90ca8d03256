"""How commands run.

The imports are inside the functions, because help and completion must not wait for asyncio and psycopg.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from claimsvc.postgres import Repositories

_Result = TypeVar("_Result")


def run(work: Coroutine[Any, Any, _Result], *, log_level: str = "error", log_format: str = "auto") -> _Result:
    """Run a coroutine to its end, and return its result. Logs less than the service: log lines disturb the output."""
    import asyncio

    from claimsvc import logs

    logs.configure(log_level, log_format)
    return asyncio.run(work)


def on_storage(work: Callable[["Repositories"], Awaitable[_Result]]) -> _Result:
    """Open PostgreSQL as the settings say, run `work` on it, and return its result.

    Raises:
        SettingsError: a setting is missing or wrong, or the database cannot be used.
    """
    import asyncio

    from claimsvc.config import load_database_settings
    from claimsvc.connect import open_repositories

    async def with_storage() -> _Result:
        async with open_repositories(load_database_settings()) as storage:
            return await work(storage)

    # Nothing here logs, so structlog is not imported: that takes 0.1 s.
    return asyncio.run(with_storage())
