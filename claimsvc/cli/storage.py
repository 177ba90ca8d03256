"""How commands run on PostgreSQL."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from claimsvc.postgres import Repositories

_Result = TypeVar("_Result")


def on_storage(work: Callable[["Repositories"], Awaitable[_Result]]) -> _Result:
    """Open PostgreSQL as the settings say, run `work` on it, and return its result.

    Raises:
        SettingsError: a setting is missing or wrong, or the database cannot be used.
    """
    # Imported here, because help and completion must not wait for SQLAlchemy, which takes half a second.
    import asyncio

    from claimsvc.config import load_database_settings
    from claimsvc.connect import open_repositories

    async def run() -> _Result:
        async with open_repositories(load_database_settings()) as storage:
            return await work(storage)

    return asyncio.run(run())
